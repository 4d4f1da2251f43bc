"""What holds for all tests."""

from hypothesis import settings

# Machines that run these tests are shared: how long an example takes says nothing about the code.
settings.register_profile("bloodauto", deadline=None)
settings.load_profile("bloodauto")
