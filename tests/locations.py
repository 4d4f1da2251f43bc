"""Where the tests find what does not lie beside them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Real images and weights, beside the checkout; tests that use them skip where they are absent.
SHARED = ROOT.parent / "shared"
