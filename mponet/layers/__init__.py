"""What the native layers of all frameworks share.

Checks, conversions, assignment, plans and reprs.
"""
