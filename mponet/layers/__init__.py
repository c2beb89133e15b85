"""What the native layers of all frameworks share, framework-free."""
