// What the tests run in Node and in a browser: checksums of an engine's steps, as tests/browser/native.py makes them.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  }
  return value;
});

function crc(array, before) {
  let value = ~before;
  for (const byte of new Uint8Array(array.buffer, array.byteOffset, array.byteLength)) {
    value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  }
  return ~value >>> 0;
}

export async function play(Engine, bytes, description, seed, steps) {
  const engine = await Engine.load(bytes);
  const world = await engine.world(description);
  world.reset(seed);
  let value = 0;
  for (let k = 0; k < steps; k += 1) {
    world.step(k % 2 === 0 ? "script" : "random");
    for (const array of [world.observations, world.rewards, world.truncations]) {
      value = crc(array, value);
    }
  }
  return value;
}
