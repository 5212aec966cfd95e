import pytest

pytest.register_assert_rewrite("tests.helpers")  # a failed assert of a helper shows its values
