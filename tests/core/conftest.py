"""Settings of the property tests: what the run as a whole has set, with fewer examples and no deadline.

The first example of a test imports TensorNetwork or warms a cache; a deadline would fail on that, not on a defect.
"""

from hypothesis import settings

settings.register_profile("core", settings(), max_examples=40, deadline=None)
settings.load_profile("core")
