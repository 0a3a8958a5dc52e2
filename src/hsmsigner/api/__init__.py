"""The gRPC edge: who calls, what they ask, and how the answer is written. Servicers are thin."""
