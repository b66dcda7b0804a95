"""Is an answer right? ``verify(response, reference, spec)`` and, for many pairs, ``Verifier``.

Importing this is cheap: no sympy, no math_verify, no numpy; those live in worker processes.
"""

from ares_eval.verify.verifier import Verifier, shared_verifier, verify
from ares_eval.verify.version import VERIFIER_VERSION

__all__ = ["VERIFIER_VERSION", "Verifier", "shared_verifier", "verify"]
