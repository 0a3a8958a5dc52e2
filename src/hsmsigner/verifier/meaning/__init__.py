"""What the records tell, held against the rules of the appliance.

A log can be whole and still tell of what must never happen. Each rule is a class that says which types of record it
judges; it sees every one of them, in order, and keeps what it needs of the past:

- `policies`: revisions rise by one, and each decision is by the newest.
- `keys`: states change as they may, and only a version that may sign signs.
- `quotas`: debits are those that the policy asks for, and never exceed it.
- `requests`: each outcome has its authorization.
- `own_uses`: so do certificate requests and statements of continuity.

Types of record that no rule knows are counted and not judged.
"""

from hsmsigner.verifier.meaning.judge import Meaning

__all__ = ["Meaning"]
