"""Microsoft Sentinel: Azure's own library against a local Logs Ingestion API that misbehaves, and the template and page
that promise what it is sent."""

import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from apiserver import body, drip, hang, redirect
from armserver import reset, status
from azure_data import TENANT
from cli import kubeposture
from hypothesis import given, settings
from ingestserver import LIMIT, RULE, IngestServer, fits
from proxyserver import Proxy
from test_ocsf import TEXTS, ended, finding

from scanner import safe_yaml
from scanner.config import Config, ConfigError
from scanner.model import ExemptionNote, Lifecycle, ResourceRef, Status
from scanner.report.ocsf import finding_event
from scanner.report.ocsf_event import LIMIT as LONGEST
from scanner.report.ocsf_event import line
from scanner.sinks import Packed, Refused, Unavailable, Unusable, sentinel
from scanner.sinks.sentinel import Sentinel, columns, open_sink
from scanner.sinks.settings import SentinelSink

ROOT = Path(__file__).parent.parent
TEMPLATE = json.loads((ROOT / "deploy/sentinel/template.json").read_text())
PAGE = (ROOT / "docs/sentinel.md").read_text()
TABLE, DCR, ROLE = TEMPLATE["resources"]
COLUMNS = {column["name"]: column["type"] for column in TABLE["properties"]["schema"]["columns"]}
STREAM = "Custom-Kubeposture_CL"
NOW = datetime(2026, 9, 1, 12, 30, 15, 123000, tzinfo=UTC)


@pytest.fixture
def azure(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with IngestServer(template=TEMPLATE) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def sink(azure):
    found = open_sink(SentinelSink(azure.url, RULE))
    yield found
    found.close()


def pack(*events):
    """Packing needs neither a login nor a network."""
    return [Packed(event["metadata"]["uid"], Sentinel.pack(None, event)) for event in events]


def events(n=3, **fields):
    return [finding_event(finding(**{"id": f"kp1_{i:032x}", **fields})) for i in range(n)]


def told(lifecycle, **fields):
    """What a history says of a finding."""
    found = finding_event(finding(lifecycle=lifecycle, **fields))
    found["unmapped"]["baseline"] = lifecycle.state == "new"
    return found


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Events of whole scans, and what a history and exemptions add to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("real"))
        result = kubeposture("demo", "--status", "all", "-o", "ocsf")
    before = NOW - timedelta(days=3)
    return [
        *(json.loads(row) for row in result.stdout.splitlines()),
        told(Lifecycle("new", NOW, NOW, None, None)),
        told(Lifecycle("resolved", before, NOW, NOW, "deleted")),
        finding_event(finding(exemption=ExemptionNote("vendor image", "platform", None))),
        *ended(),
    ]


# -- rows


def test_columns_are_the_emitted_ones_both_ways(real):
    rows = [json.loads(packed.body) for packed in pack(*real)]
    assert {name for row in rows for name in row} == set(COLUMNS) - {"TimeGenerated"}
    for row in rows:
        for name, value in row.items():
            assert fits(COLUMNS[name], value), (name, value)


def test_stream_declares_what_the_table_has():
    [(name, stream)] = DCR["properties"]["streamDeclarations"].items()
    assert {column["name"]: column["type"] for column in stream["columns"]} == COLUMNS
    assert len(stream["columns"]) == len(TABLE["properties"]["schema"]["columns"]) == len(COLUMNS)
    [flow] = DCR["properties"]["dataFlows"]
    assert (flow["streams"], flow["outputStream"], flow["transformKql"]) == ([name], STREAM, "source")
    assert flow["destinations"] == [d["name"] for d in DCR["properties"]["destinations"]["logAnalytics"]]
    assert (
        name
        == STREAM
        == SentinelSink("https://a.example", RULE).stream
        == f"Custom-{TABLE['properties']['schema']['name']}"
    )


def test_names_of_columns_are_allowed():
    reserved = {"_resourceid", "id", "_subscriptionid", "tenantid", "type", "uniqueid", "title"}
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,44}", name) for name in COLUMNS)
    assert not reserved & {name.lower() for name in COLUMNS}
    assert set(COLUMNS.values()) <= {"string", "int", "long", "real", "boolean", "datetime", "dynamic"}
    assert COLUMNS["TimeGenerated"] == "datetime"


def test_row_of_a_finding():
    event = told(Lifecycle("new", NOW - timedelta(days=3), NOW, None, None), observed_at=NOW, reason="bad_x")
    row = columns(json.loads(line(event)))
    assert row.pop("OcsfEvent") == json.loads(line(event))
    assert row == {
        "EventTime": "2026-09-01T12:30:15.123Z",
        "EventUid": event["metadata"]["uid"],
        "EventCode": "k8s-x",
        "ScanUid": "6a4d6a55-6a2f-4b5e-8e5c-1f6f0f3b9a11",
        "ClassUid": 2003,
        "Activity": "Create",
        "Status": "New",
        "Severity": "High",
        "SeverityId": 4,
        "Message": "Deployment prod/web [app]: it is not",
        "Baseline": True,
        "Provider": "Azure",
        "AccountUid": "11111111-2222-4333-8444-555555555555",
        "Region": "westeurope",
        "FindingUid": "kp1_" + "0a" * 16,
        "CheckId": "k8s-x",
        "CheckTitle": "X should be",
        "Category": "data_plane",
        "Verdict": "Fail",
        "Reason": "bad_x",
        "Exempted": False,
        "FirstSeen": "2026-08-29T12:30:15.123Z",
        "LastSeen": "2026-09-01T12:30:15.123Z",
        "Remediation": "mend it",
        "ClusterName": "shop",
        "ClusterUid": event["resources"][1]["uid"],
        "Namespace": "prod",
        "ResourceKind": "Deployment",
        "ResourceName": "web",
        "ResourceUid": event["resources"][0]["uid"],
        "Container": "app",
    }


def test_row_of_one_that_is_closed_or_exempted(real):
    closed, exempted = (columns(json.loads(line(event))) for event in real[-3:-1])
    assert (closed["Activity"], closed["Status"], closed["Verdict"], closed["StatusDetail"], closed["Exempted"]) == (
        *("Close", "Resolved", "Pass", "deleted"),
        False,
    )
    assert (exempted["Activity"], exempted["Status"], exempted["Verdict"], exempted["Exempted"]) == (
        *("Create", "Suppressed", "Fail"),
        True,
    )


def test_row_of_a_finding_that_carries_no_more_than_it_must():
    event = told(Lifecycle("resolved", NOW, NOW, NOW, "deleted"), cluster=None)
    for name in ("remediation", "resources", "cloud", "status_detail", "unmapped"):
        event.pop(name, None)
    event["finding_info"] = {"uid": "kp1_0"}
    event["compliance"] = {"status": "Pass"}
    row = columns(json.loads(line(event)))
    assert (row["FindingUid"], row["Verdict"], row["Baseline"]) == ("kp1_0", "Pass", False)
    assert not {"CheckTitle", "Category", "ResourceUid", "ClusterUid", "Provider", "Remediation", "FirstSeen"} & {*row}


def test_row_of_a_scan(real):
    rows = [columns(json.loads(line(event))) for event in real if event["class_uid"] == 6007]
    whole = next(row for row in rows if row["EventCode"] == "scan")
    assert not {"FindingUid", "Verdict", "Exempted", "ClusterUid", "ResourceUid"} & {*whole}
    assert whole["ObjectsRead"] > 50
    assert whole["Detections"] > 50
    clusters = [row for row in rows if row["EventCode"] == "coverage-cluster"]
    assert {row["ClusterName"] for row in clusters} >= {"demo-shop"}
    assert all("ClusterUid" in row and "ResourceUid" not in row for row in clusters)


def test_last_of_all_times_is_a_time():
    late = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    [packed] = pack(finding_event(finding(observed_at=late)))
    assert json.loads(packed.body)["EventTime"] == "9999-12-31T23:59:59.000Z"


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS)
def test_hostile_text_fits(name, text):
    hostile = finding(title=text, message=text, remediation=text, region=name, account=text,
                      resource=ResourceRef(text, text, name, name, text, text))  # fmt: skip
    event = finding_event(hostile)
    [packed] = pack(event)
    assert pack(json.loads(line(event))) == [packed]
    row = json.loads(packed.body)
    assert packed.body.isascii()
    assert len(packed.body) < Sentinel.most_bytes / 4
    assert json.dumps(row).encode() == packed.body  # so that its length is the one that is sent
    assert all(fits(COLUMNS[field], value) for field, value in row.items())
    assert all(len(value.encode()) < LONGEST for value in row.values() if isinstance(value, str))


# -- what is sent


def test_rows_arrive_as_they_are(azure, sink, real):
    batch = pack(*real)
    start = datetime.now(UTC)
    for first in range(0, len(batch), 100):
        assert sink.send(batch[first : first + 100]) == {}
    assert len(azure.rows) == len(batch)
    for row, packed in zip(azure.rows, batch, strict=True):
        sent = datetime.fromisoformat(row.pop("TimeGenerated"))
        assert start - timedelta(seconds=1) < sent <= datetime.now(UTC)
        assert row == json.loads(packed.body)


def test_token_is_for_azure_monitor_and_asked_for_once(azure, sink):
    for _ in range(3):
        sink.send(pack(*events()))
    assert [token.resource for token in azure.tokens] == ["https://monitor.azure.com/"]
    assert azure.calls == [3, 3, 3]
    assert {request.path for request in azure.requests} == {f"/dataCollectionRules/{RULE}/streams/{STREAM}"}


@pytest.mark.parametrize(
    ("cloud", "audience"),
    [("AzureUSGovernment", "https://monitor.azure.us"), ("AzureChinaCloud", "https://monitor.azure.cn")],
)
def test_each_cloud_has_its_audience(azure, cloud, audience):
    azure.audience = audience
    sink = open_sink(SentinelSink(azure.url, RULE, cloud=cloud))
    assert sink.send(pack(*events())) == {}
    sink.close()


def test_largest_batch_is_one_call(azure, sink):
    row = pack(*events(1))[0]
    many = [row] * min(sink.most_events, sink.most_bytes // len(row.body))
    sink.send(many)
    long = Packed("x", json.dumps({"Message": "x" * (sink.most_bytes // sink.most_events - 15)}).encode())
    assert sink.most_bytes - 2 * sink.most_events < len(long.body) * sink.most_events <= sink.most_bytes
    sink.send([long] * sink.most_events)
    assert azure.calls == [len(many), sink.most_events]


def test_a_batch_that_the_sdk_splits_loses_nothing(azure, sink):
    big = [Packed(str(i), json.dumps({"Message": f"{i}" * 300_000}).encode()) for i in range(8)]
    sink.send(big)
    assert len(azure.calls) > 1
    assert [row["Message"][0] for row in azure.rows] == [packed.uid for packed in big]
    azure.rows.clear()
    azure.poison = "7" * 20
    with pytest.raises(Refused):
        sink.send(big)
    azure.inject("/streams/", status(503), times=1)
    azure.poison = ""
    with pytest.raises(Unavailable):
        sink.send(big)


def test_nothing_is_sent_for_nothing(azure, sink):
    assert sink.send([]) == {}
    assert azure.requests == []


# -- what goes wrong


def test_a_poisoned_batch_is_refused_and_told_apart(azure, sink):
    *good, bad = pack(*events(2), *events(1, message="poison"))
    azure.poison = "poison"
    with pytest.raises(Refused, match=r"answered 400 \(InvalidPayload\): The payload could not be read"):
        sink.send([*good, bad])
    assert azure.rows == []
    assert sink.send(good) == {}
    assert [row["EventUid"] for row in azure.rows] == [packed.uid for packed in good]


def test_a_call_that_is_too_large_is_refused(azure, sink):
    with pytest.raises(Refused, match=r"answered 413 \(ContentLengthLimitExceeded\)"):
        sink.send([Packed("x", json.dumps({"Message": "x" * LIMIT}).encode())])
    assert len(azure.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_left_to_the_delivery(azure, sink, code):
    azure.inject("/streams/", status(code, retry_after=7))
    start = time.monotonic()
    with pytest.raises(Unavailable, match=f"answered {code}") as caught:
        sink.send(pack(*events()))
    assert caught.value.wait == 7
    assert len(azure.requests) == 1
    assert time.monotonic() - start < 5
    azure.heal()
    assert sink.send(pack(*events())) == {}


def test_a_wait_that_nobody_named(azure, sink):
    azure.inject("/streams/", status(429))
    with pytest.raises(Unavailable) as caught:
        sink.send(pack(*events()))
    assert caught.value.wait is None


def test_without_the_role(azure, sink):
    azure.granted = False
    with pytest.raises(Unusable, match=f"the role Monitoring Metrics Publisher on the data collection rule {RULE}"):
        sink.send(pack(*events()))


def test_without_the_rule(azure):
    sink = open_sink(SentinelSink(azure.url, "dcr-" + "0" * 32))
    with pytest.raises(Unusable, match=r"there is no data collection rule dcr-0+ at this endpoint"):
        sink.send(pack(*events()))
    sink.close()


def test_without_the_stream_nothing_is_refused(azure):
    """Azure answers 400, as for events that are wrong: each of them would be given up."""
    sink = open_sink(SentinelSink(azure.url, RULE, stream="Custom-Other_CL"))
    with pytest.raises(Unusable, match="declares no stream Custom-Other_CL"):
        sink.send(pack(*events()))
    sink.close()


def test_a_token_that_is_not_accepted(azure, sink):
    azure.audience = "https://monitor.azure.us"
    with pytest.raises(Unusable, match="check tenant and cloud"):
        sink.send(pack(*events()))
    assert len(azure.requests) == 1


@pytest.mark.parametrize("code", [200, 202, 301, 402, 405, 410])
def test_what_azure_never_answers(azure, sink, code):
    azure.inject("/streams/", status(code))
    with pytest.raises(Unusable, match=f"answered {code}.*is endpoint its address"):
        sink.send(pack(*events()))


def test_redirects_are_not_followed(azure, sink):
    with IngestServer(template=TEMPLATE) as other:
        azure.inject("/streams/", redirect(f"{other.url}/dataCollectionRules/{RULE}/streams/{STREAM}"))
        with pytest.raises(Unusable, match="redirects are not followed"):
            sink.send(pack(*events()))
        assert other.requests == []


@pytest.mark.parametrize("fault", [reset(), body(b"<html>", code=500), body(b"\x1f\x8b\xff", code=500)], ids=range(3))
def test_broken_answers(azure, sink, fault):
    azure.inject("/streams/", fault)
    with pytest.raises(Unavailable):
        sink.send(pack(*events()))


@pytest.mark.parametrize("fault", [hang(), drip()], ids=["silent", "dripping"])
def test_an_answer_that_does_not_end(azure, monkeypatch, fault):
    monkeypatch.setattr(sentinel, "_READ_TIMEOUT", 0.3)
    monkeypatch.setattr(sentinel, "_WHOLE_ANSWER", 0.6)
    sink = open_sink(SentinelSink(azure.url, RULE))
    azure.inject("/streams/", fault)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        sink.send(pack(*events()))
    assert time.monotonic() - start < 5
    assert len(azure.requests) == 1
    sink.close()


def test_nobody_there(azure, sink):
    sink.send(pack(*events()))  # with a token that is kept
    azure._http.shutdown()
    azure._http.drop_connections()
    azure._http.socket.close()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        sink.send(pack(*events()))


def test_an_authority_that_is_not_trusted(azure, sink, monkeypatch):
    sink.send(pack(*events()))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    stranger = open_sink(SentinelSink(azure.url, RULE))
    stranger._credential._kept = sink._credential._kept  # the identity endpoint is not trusted either
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        stranger.send(pack(*events()))
    stranger.close()


@pytest.mark.parametrize(
    "error",
    [
        {"code": 400, "message": "x"},
        {"code": "X", "message": {"a": 1}},
        {"code": ["X"], "message": 5},
        {"code": {"a": 1}},
        {"code": None, "message": None},
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(400, Refused), (403, Unusable), (500, Unavailable)])
def test_an_error_that_is_no_text(azure, sink, error, status, kind):
    answer = body(json.dumps({"error": error}).encode(), code=status)
    azure.inject("/streams/", answer, times=1)
    with pytest.raises(kind, match=f"answered {status}"):
        sink.send(pack(*events()))


def test_no_login(azure, monkeypatch):
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    sink = open_sink(SentinelSink(azure.url, RULE))
    with pytest.raises(Unusable, match="no Azure credential worked"):
        sink.send(pack(*events()))
    assert azure.requests == []
    sink.close()


def test_an_identity_endpoint_that_refuses_refuses_no_event(azure, sink):
    """Its 400 is not the answer to a call."""
    azure.inject("/identity/", status(400))
    with pytest.raises(Unusable, match="no Azure credential worked"):
        sink.send(pack(*events()))
    azure.heal()
    assert sink.send(pack(*events())) == {}


def test_a_login_of_another_tenant(azure):
    other = "99999999-9999-4999-8999-999999999999"
    sink = open_sink(SentinelSink(azure.url, RULE, tenant=other))
    with pytest.raises(Unusable, match=f"belongs to tenant {TENANT}, not to tenant {other}"):
        sink.send(pack(*events()))
    sink.close()


def test_netrc_does_not_take_the_place_of_the_token(azure, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sink = open_sink(SentinelSink(azure.url, RULE))
    assert sink.send(pack(*events())) == {}
    sink.close()


def test_by_way_of_a_proxy(azure, monkeypatch):
    with Proxy(azure.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.url}")
        sink = open_sink(SentinelSink(azure.url, RULE))
        assert sink.send(pack(*events())) == {}
        sink.close()
        assert any(head.startswith(f"CONNECT 127.0.0.1:{azure.port}") for head in proxy.heads)
    assert len(azure.rows) == 3


def test_no_secret_is_told(azure, sink, caplog):
    caplog.set_level("DEBUG")
    azure.inject("/streams/", status(403, "X", "it said: Bearer eyJhbGciOi.eyJzdWIi.abc and password=hunter2"))
    with pytest.raises(Unusable) as caught:
        sink.send(pack(*events()))
    token = azure.tokens[0].token
    text = f"{caught.value}{caplog.text}{sink!r}"
    assert not [secret for secret in (token, "hunter2", "eyJ", "it is not") if secret in text]


def test_a_fault_of_our_own_is_not_taken_for_azures(sink, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(sink._client._client._pipeline, "run", broken)
    with pytest.raises(ZeroDivisionError):
        sink.send(pack(*events()))


# -- settings


@pytest.mark.parametrize(
    "endpoint",
    ["https://a..b", "https://h%00.x", "https://*.x",
     "kubeposture-x.westeurope-1.ingest.monitor.azure.com", "http://a.example", "http://127.0.0.1:1", "https://",
     "https://a.example/path", "https://user:hunter2@a.example", "https://a.example\\@b", "ftp://a"],
)  # fmt: skip
def test_endpoints_that_cannot_be(endpoint):
    with pytest.raises(ConfigError, match="sentinel: endpoint is the address for logs ingestion") as caught:
        open_sink(SentinelSink(endpoint, RULE))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("rule", ["kubeposture", "/subscriptions/1/x", f"{RULE}/streams/x", "dcr-"])
def test_rules_that_cannot_be(rule):
    with pytest.raises(ConfigError, match="rule is the immutable id"):
        open_sink(SentinelSink("https://a.example", rule))


@pytest.mark.parametrize("stream", ["Kubeposture_CL", "Custom-a/b", "Custom-a?b"])
def test_streams_that_cannot_be(stream):
    with pytest.raises(ConfigError, match="stream is one that the data collection rule declares"):
        open_sink(SentinelSink("https://a.example", RULE, stream=stream))


def test_an_sdk_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.monitor.ingestion", None)
    with pytest.raises(ConfigError, match=r"pip install 'kubeposture\[sentinel\]'"):
        open_sink(SentinelSink("https://a.example", RULE))


def test_a_proxy_that_cannot_be(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://user:hun/ter2@proxy.example:3128")
    with pytest.raises(ConfigError, match="percent-encoded") as caught:
        open_sink(SentinelSink("https://a.example", RULE))
    assert "ter2" not in str(caught.value)


# -- the template


def expressions(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from expressions(item)
    elif isinstance(value, str) and value.startswith("["):
        yield value


def test_template_is_whole():
    assert TEMPLATE["$schema"].endswith("/2019-04-01/deploymentTemplate.json#")
    assert set(TEMPLATE) == {"$schema", "contentVersion", "parameters", "variables", "resources", "outputs"}
    text = " ".join(expressions(TEMPLATE))
    for kind in ("parameters", "variables"):
        assert set(re.findall(rf"{kind}\('(\w+)'\)", text)) == set(TEMPLATE[kind])
    for expression in expressions(TEMPLATE):
        assert expression.endswith("]")
        assert expression.count("(") == expression.count(")")
        assert expression.count("'") % 2 == 0
    for parameter in TEMPLATE["parameters"].values():
        assert parameter["metadata"]["description"]
        default = parameter.get("defaultValue")
        assert default in parameter.get("allowedValues", [default])
    for resource in TEMPLATE["resources"]:
        assert re.fullmatch(r"Microsoft\.\w+(/\w+)+", resource["type"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", resource["apiVersion"])
        assert {"name", "properties"} <= set(resource)


def test_template_creates_what_it_should_in_order():
    rule = "[resourceId('Microsoft.Insights/dataCollectionRules', parameters('ruleName'))]"
    table = TABLE["properties"]["schema"]["name"]
    assert TABLE["name"] == f"[format('{{0}}/{table}', parameters('workspaceName'))]"
    assert DCR["kind"] == "Direct"
    assert DCR["dependsOn"] == [f"[resourceId('{TABLE['type']}', parameters('workspaceName'), '{table}')]"]
    assert ROLE["dependsOn"] == [rule]
    assert ROLE["scope"] == "[format('Microsoft.Insights/dataCollectionRules/{0}', parameters('ruleName'))]"
    # https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/monitor
    assert TEMPLATE["variables"]["publisher"] == "3913510d-42f4-4e42-8a64-420c390055eb"
    assert "variables('publisher')" in ROLE["properties"]["roleDefinitionId"]
    assert set(TEMPLATE["outputs"]) == {"endpoint", "rule", "stream"} <= set(SentinelSink.__struct_fields__)
    assert TEMPLATE["outputs"]["stream"]["value"] == STREAM
    for name, last in (("endpoint", "endpoints.logsIngestion"), ("rule", "immutableId")):
        expected = f"[reference({rule[1:-1]}, '{DCR['apiVersion']}').{last}]"
        assert TEMPLATE["outputs"][name]["value"] == expected


# -- the page

QUERIES = re.findall(r"```kql\n(.*?)```", PAGE, re.DOTALL)


def test_page_tells_of_every_column():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(c["name"], c["type"], c["description"]) for c in TABLE["properties"]["schema"]["columns"]]


def test_page_tells_of_every_option():
    section = PAGE.partition("Options of `sentinel:`\n")[2].partition("\nA workspace")[0]
    assert re.findall(r"^\| `(\w+)` ", section, re.MULTILINE) == list(SentinelSink.__struct_fields__)
    assert set(re.findall(r"`(Azure\w+)`", section)) == set(sentinel.SCOPES)


@pytest.mark.parametrize("query", QUERIES)
def test_queries_ask_for_columns_that_exist(query):
    made = set(re.findall(r"(\w+) = ", query))
    bare = re.sub(r'"[^"]*"|\bOcsfEvent(\.\w+)+', "", query)
    used = set(re.findall(r"\b[A-Z]\w*", bare)) - made
    assert used - set(COLUMNS) == {"Kubeposture_CL"}
    assert query.count("(") == query.count(")")
    assert all(row.startswith("| ") for row in query.splitlines()[1:])


def test_queries_compare_with_what_is_emitted(real):
    rows = [columns(json.loads(line(event))) for event in [*real, finding_event(finding(status=Status.ERROR))]]
    known = {name: {row[name] for row in rows if name in row} for name in COLUMNS if name != "OcsfEvent"}
    known["Status"] |= {"Failure"}
    compared = [pair for query in QUERIES for pair in re.findall(r'(\w+) [!=]= ("[^"]*"|\d+)', query)]
    for name, listed in re.findall(r"(\w+) in \(([^)]*)\)", " ".join(QUERIES)):
        compared += [(name, value) for value in listed.split(", ")]
    compared = [(name, json.loads(value)) for name, value in compared if name in COLUMNS]
    assert len(compared) > 15
    assert [pair for pair in compared if pair[1] not in known[pair[0]]] == []


def test_page_has_what_was_promised():
    assert len(QUERIES) == 1 + 5 + 4
    assert "dcount(ScanUid)" in QUERIES[-1]
    [config] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    [named] = msgspec.convert(safe_yaml.load(config), Config).sinks
    assert isinstance(named.settings, SentinelSink)
    open_sink(named.settings).close()
    for advice in ("the role", "there is no data collection rule", "declares no stream", "the token was not accepted"):
        assert advice in PAGE
