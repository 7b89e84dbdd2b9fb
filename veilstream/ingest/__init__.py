"""What the gate knows of input: how to read it, and what it may be."""
