"""What the native layers of all frameworks share: checks, conversions, assignment, plans and reprs."""
