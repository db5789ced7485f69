; What Numba's own library does for compiled code, for a processor whose pointers have 32 bits.
target triple = "wasm32-unknown-unknown"

; Memory of the arrays that kernels allocate. It is taken from one block, which starts over when everything in it is free.
; A header precedes the memory of an array. Its fourth word says where that memory is.
%header = type { i64, ptr, ptr, ptr, i64, ptr }
@scratch = internal global [SCRATCH_BYTES x i8] zeroinitializer, align 64
@used = internal global i32 0
@live = internal global i32 0

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %from = load i32, ptr @used
  %live = load i32, ptr @live
  %more = add i32 %live, 1
  %bytes = trunc i64 %size to i32
  %padded = add i32 %bytes, 127
  %rounded = and i32 %padded, -64
  %to = add i32 %from, %rounded
  %fits = icmp ule i32 %to, SCRATCH_BYTES
  br i1 %fits, label %take, label %full
take:
  store i32 %to, ptr @used
  store i32 %more, ptr @live
  %at = getelementptr i8, ptr @scratch, i32 %from
  %data = getelementptr i8, ptr %at, i32 64
  store %header { i64 1, ptr null, ptr null, ptr null, i64 0, ptr null }, ptr %at
  %place = getelementptr %header, ptr %at, i32 0, i32 3
  store ptr %data, ptr %place
  ret ptr %at
full:
  call void @llvm.trap()
  unreachable
}

define ptr @NRT_MemInfo_alloc_safe_aligned(i64 %size, i32 %align) {
  %at = call ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align)
  ret ptr %at
}

define void @NRT_MemInfo_call_dtor(ptr %at) {
  %live = load i32, ptr @live
  %fewer = sub i32 %live, 1
  store i32 %fewer, ptr @live
  %none = icmp eq i32 %fewer, 0
  br i1 %none, label %reset, label %end
reset:
  store i32 0, ptr @used
  br label %end
end:
  ret void
}

; The strides of a contiguous array of another shape.
define i32 @numba_attempt_nocopy_reshape(i64 %nd, ptr %dims, ptr %strides, i64 %newnd, ptr %newdims, ptr %newstrides, i64 %itemsize, i32 %fortran) {
entry:
  br label %next
next:
  %k = phi i64 [ %newnd, %entry ], [ %axis, %body ]
  %stride = phi i64 [ %itemsize, %entry ], [ %wider, %body ]
  %done = icmp eq i64 %k, 0
  br i1 %done, label %end, label %body
body:
  %axis = sub i64 %k, 1
  %into = getelementptr i64, ptr %newstrides, i64 %axis
  store i64 %stride, ptr %into
  %from = getelementptr i64, ptr %newdims, i64 %axis
  %length = load i64, ptr %from
  %wider = mul i64 %stride, %length
  br label %next
end:
  ret i32 1
}

; Numba checks the sizes of arrays for overflow, by a product of 128 bits, which this processor lacks. All memory has 32.
define { i64, i1 } @size_product(i64 %a, i64 %b) {
  %product = mul i64 %a, %b
  %result = insertvalue { i64, i1 } { i64 0, i1 false }, i64 %product, 0
  ret { i64, i1 } %result
}

define double @sqrt(double %x) {
  %root = call double @llvm.sqrt.f64(double %x)
  ret double %root
}

; What only errors in kernels reach, whose messages nobody could read: they end the call.
@PyExc_RuntimeError = global ptr null

define double @log10(double %x) {
  call void @llvm.trap()
  unreachable
}

define ptr @NRT_Allocate(i64 %size) {
  call void @llvm.trap()
  unreachable
}

define ptr @NRT_MemInfo_alloc(i64 %size) {
  call void @llvm.trap()
  unreachable
}

define void @NRT_Free(ptr %at) {
  call void @llvm.trap()
  unreachable
}

define void @PyErr_SetString(ptr %kind, ptr %text) {
  call void @llvm.trap()
  unreachable
}

declare double @llvm.sqrt.f64(double)
declare void @llvm.trap()
