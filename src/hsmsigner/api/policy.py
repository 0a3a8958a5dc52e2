"""PolicyService."""

from __future__ import annotations

import hashlib

from hsmsigner.api.authn import current_principal
from hsmsigner.api.convert import timestamp
from hsmsigner.api.interceptors import Context
from hsmsigner.operations.policy import Policies
from hsmsigner.operations.ports import PolicyRevision
from hsmsigner.pb import policy_pb2, policy_pb2_grpc


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Checks, asks the use case, writes the answer out."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def GetPolicy(self, request: policy_pb2.GetPolicyRequest, context: Context) -> policy_pb2.Policy:
        return _policy(self._policies.get(current_principal()))

    async def ValidatePolicy(
        self, request: policy_pb2.ValidatePolicyRequest, context: Context
    ) -> policy_pb2.ValidatePolicyResponse:
        document = request.document.encode()
        problems = await self._policies.validate(current_principal(), document)
        return policy_pb2.ValidatePolicyResponse(
            problems=[
                policy_pb2.PolicyProblem(
                    line=problem.line, column=problem.column, field=problem.field, message=problem.message
                )
                for problem in problems
            ],
            sha256=hashlib.sha256(document).hexdigest(),
        )

    async def PublishPolicy(self, request: policy_pb2.PublishPolicyRequest, context: Context) -> policy_pb2.Policy:
        revision = await self._policies.publish(
            current_principal(),
            request.document.encode(),
            expected_revision=request.expected_revision,
            comment=request.comment,
            allow_lockout=request.allow_lockout,
        )
        return _policy(revision)


def _policy(revision: PolicyRevision) -> policy_pb2.Policy:
    return policy_pb2.Policy(
        revision=revision.revision,
        document=revision.document.decode(),
        sha256=revision.sha256,
        publish_time=timestamp(revision.publish_time),
        publisher=revision.publisher,
    )
