"""Many runs: sweeps, studies, and what they show."""
