"""Pure values and decisions. No clock, no randomness, no logging, no I/O: `now` is always a parameter."""
