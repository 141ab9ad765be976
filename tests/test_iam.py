"""What IAM policies allow: AWS's rules, in the words of policies."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.cloud import Facts
from scanner.iam import _matches, about_action, allows
from scanner.model import MissingEvidence

BUCKET = "arn:aws:s3:::azuredefender-eu-west-1-111122223333-prod"
CLUSTER = "arn:aws:eks:eu-west-1:111122223333:cluster/prod"
IF = {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}


def says(effect="Allow", action="s3:*", resource="*", **more):
    return {"Effect": effect, "Action": action, "Resource": resource} | more


def without(statement, *keys, **more):
    return {key: value for key, value in statement.items() if key not in keys} | more


def ask(*statements, action="s3:*", resource=BUCKET):
    policies = [Facts({"document": {"Statement": [statement]}}, "p") for statement in statements]
    together = [Facts({"document": {"Statement": list(statements)}}, "p")] if statements else []
    answer = allows(policies, action, resource)
    assert answer is allows(together, action, resource)  # in how many policies they are makes no difference
    return answer


@pytest.mark.parametrize(
    ("pattern", "action", "answer"),
    [
        ("s3:*", "s3:GetObject", True),
        ("S3:getobject", "s3:GetObject", True),
        ("s3:Get*", "s3:GetObject", True),
        ("s3:Get?bject", "s3:GetObject", True),
        ("s3:Get?Object", "s3:GetObject", False),
        ("*", "s3:GetObject", True),
        ("*:*", "s3:GetObject", True),
        ("s3:*Object", "s3:GetObject", True),
        ("s3:*Objects", "s3:GetObject", False),
        ("s3:Get", "s3:GetObject", False),
        ("sqs:*", "s3:GetObject", False),
        (["sqs:*", "s3:GetObject"], "s3:GetObject", True),
        ("s3:*", "s3:*", True),
        ("s3*", "s3:*", True),
        ("*", "s3:*", True),
        ("s3:**", "s3:*", True),
        ("s3:?*", "s3:*", False),
        ("s3:Get*", "s3:*", False),
        (["s3:Get*", "s3:Put*"], "s3:*", False),
        ("s3:*Object", "s3:*", False),
    ],
)
def test_actions(pattern, action, answer):
    assert ask(says(action=pattern), action=action) is answer


@pytest.mark.parametrize(
    ("pattern", "resource", "answer"),
    [
        ("*", CLUSTER, True),
        (CLUSTER, CLUSTER, True),
        (f"{CLUSTER}2", CLUSTER, False),
        ("arn:aws:eks:*:111122223333:*", CLUSTER, True),
        ("arn:aws:eks:*:999988887777:*", CLUSTER, False),
        ("arn:aws:eks:us-east-1:111122223333:cluster/*", CLUSTER, False),
        ("arn:aws:eks:eu-west-1:111122223333:cluster/Prod", CLUSTER, False),
        ("arn:aws:eks:eu-west-?:111122223333:cluster/????", CLUSTER, True),
        ("arn:aws:eks", CLUSTER, True),
        ("arn:aws:s3", CLUSTER, False),
        ("arn:*", CLUSTER, True),
        ("arn:aws-cn:eks:*:*:*", CLUSTER, False),
        ("arn:aws:s3:::azuredefender-*", BUCKET, True),
        ("arn:aws:s3:::azuredefender-*", f"{BUCKET}/*", True),
        (BUCKET, f"{BUCKET}/*", False),
        (f"{BUCKET}/a*", f"{BUCKET}/*", False),
        ([f"{BUCKET}x", f"{BUCKET}/*"], f"{BUCKET}/*", True),
        ("arn:aws:s3:::logs", BUCKET, False),
    ],
)
def test_resources(pattern, resource, answer):
    assert ask(says(action="*", resource=pattern), resource=resource) is answer


@pytest.mark.parametrize(
    ("statements", "answer"),
    [
        ([], False),
        ([says()], True),
        ([says(Condition={})], True),
        ([says(Condition=IF)], None),
        ([says(Condition=IF), says()], True),
        ([says(action="sqs:*"), says(resource="arn:aws:s3:::logs")], False),
        ([says(), says("Deny")], False),
        ([says(), says("Deny", Condition=IF)], None),
        ([says(Condition=IF), says("Deny")], False),
        ([says("Deny", Condition=IF)], False),
        ([says("deny"), says("allow")], False),
        ([says(), says("Deny", "s3:DeleteBucket")], False),  # s3:* is no longer all of it
        ([says(), says("Deny", "sqs:*")], True),
        ([says(), says("Deny", resource="arn:aws:s3:::logs")], True),
        ([says(), says("Deny", resource="arn:aws:s3:::azure*")], False),
        ([without(says(), "Action", NotAction="sqs:*")], True),
        ([without(says(), "Action", NotAction=["sqs:*", "s3:Delete*"])], False),
        ([without(says(), "Action", NotAction="*")], False),
        ([says(), without(says("Deny"), "Action", NotAction=["sqs:*", "s3:*"])], True),
        ([says(), without(says("Deny"), "Action", NotAction="s3:Get*")], False),
        ([without(says(), "Resource", NotResource="arn:aws:s3:::logs")], True),
        ([without(says(), "Resource", NotResource="arn:aws:s3:::*")], False),
        ([says(), without(says("Deny"), "Resource", NotResource="arn:aws:s3:::azuredefender-*")], True),
        ([says(), without(says("Deny"), "Resource", NotResource="arn:aws:s3:::logs")], False),
        ([says(resource="arn:aws:s3:::${aws:PrincipalTag/x}-*")], None),
        ([says(resource="arn:aws:s3:::home/${aws:username}")], False),
        ([says(), says("Deny", resource="arn:aws:s3:::${aws:PrincipalTag/x}*")], None),
        ([says(), without(says("Deny"), "Resource", NotResource="arn:aws:s3:::${aws:username}-*")], None),
        ([without(says(), "Resource", NotResource="arn:aws:s3:::${aws:username}-*")], None),
        ([says(), without(says("Deny"), "Resource", NotResource=["arn:aws:s3:::a*", "${aws:username}"])], True),
        ([without(says(), "Resource", NotResource=["arn:aws:s3:::a*", "${aws:username}"])], False),
    ],
)
def test_statements_together(statements, answer):
    assert ask(*statements) is answer
    assert ask(*reversed(statements)) is answer


def test_a_single_statement_needs_no_list():
    assert allows([Facts({"document": {"Statement": says()}}, "p")], "s3:*", BUCKET) is True


@pytest.mark.parametrize(
    "statement",
    [
        without(says(), "Effect"),
        says("Audit"),
        says(7),
        without(says(), "Action"),
        without(says(), "Resource"),
        says(NotAction="sqs:*"),
        says(NotResource="*"),
        says(action=[]),
        says(action=""),
        says(action=["s3:*", 7]),
        says(action={"s3": "*"}),
        says(resource=["*", None]),
        says(resource="x" * 2049),
        says(Condition="x"),
    ],
)
def test_what_is_not_understood_allows_and_denies_nothing(statement):
    with pytest.raises(MissingEvidence):
        ask(says(), statement)


@pytest.mark.parametrize(
    "document", [None, "x", [], {}, {"Statement": None}, {"Statement": []}, {"Statement": "x"}, {"Statement": ["x"]}]
)
def test_a_document_without_statements_is_not_understood(document):
    with pytest.raises(MissingEvidence):
        allows([Facts({"document": document}, "p")], "s3:*", BUCKET)


# ---------------------------------------------------------------------------------------------------------------------
# Patterns

TEXTS = st.text("ab:", max_size=6)
PATTERNS = st.text("ab:*?", max_size=8)


def expression(pattern):
    return re.compile(pattern.replace("?", ".").replace("*", ".*"))


@given(PATTERNS, TEXTS)
def test_patterns_are_those_of_shells(pattern, text):
    matched = expression(pattern).fullmatch(text) is not None
    assert _matches(pattern, text, whole=True) is _matches(pattern, text, whole=False) is matched


@given(PATTERNS, TEXTS, st.lists(TEXTS, max_size=8))
def test_the_whole_of_an_open_text_is_every_text_that_starts_so(pattern, start, ends):
    if _matches(pattern, f"{start}*", whole=True):
        assert all(expression(pattern).fullmatch(start + end) for end in ("", *ends))
    if not _matches(pattern, f"{start}*", whole=False):
        assert not any(expression(pattern).fullmatch(start + end) for end in ("", *ends))


@given(PATTERNS, TEXTS)
def test_some_of_an_open_text_is_a_text_that_starts_so(pattern, start):
    if _matches(pattern, f"{start}*", whole=False):
        rests = (pattern[at:].replace("*", "").replace("?", "a") for at in range(len(pattern) + 1))
        assert any(expression(pattern).fullmatch(start + rest) for rest in rests)


def test_no_pattern_is_slow():
    started = time.process_time()
    for pattern in ("*a" * 1024, "a*" * 1024, "*" * 2048, "?" * 2048, "*?" * 1024, "${" * 1024, "$" + "{" * 2047):
        ask(says(resource=[pattern] * 5), resource="a" * 2000)
    assert time.process_time() - started < 5


def test_trust_policies_name_no_resource():
    statement = Facts({"Effect": "Allow", "Action": ["sts:TagSession", "sts:Assume*"]}, "s")
    assert about_action(statement, "sts:AssumeRoleWithWebIdentity", whole=True)
    assert not about_action(statement, "sts:SetSourceIdentity", whole=True)
