"""Which readings are of one cluster, and what its row says then."""

import itertools

import pytest
import trustme

from scanner.clusters import Clusters, server_keys
from scanner.collect import Estate
from scanner.inventory import Inventory
from scanner.model import Cluster, PlaneState, utc_now

ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/shop"
ARC = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kubernetes/connectedClusters/shop-arc"
CA = trustme.CA().cert_pem.bytes()
NAME = "https://shop-1a2b.hcp.westeurope.azmk8s.io:443"


def row(name, *keys, id="", uid=None, cloud_id=None, inside=PlaneState.NOT_READ, cloud=PlaneState.NOT_ASKED):
    cluster = Cluster(
        id=id or uid or f"context:{name}",
        uid=uid,
        id_source="x",
        cloud_id=cloud_id,
        provider="azure" if cloud_id else "kubernetes",
        name=name,
        control_plane=cloud,
        data_plane=inside,
        observed_at=utc_now(),
    )
    return Estate(name, Inventory(kinds=[]), cluster, keys=list(keys))


def azure(*keys, uid=None, inside=PlaneState.NOT_READ):
    return row("shop", *keys, id=ARM.lower(), cloud_id=ARM, uid=uid, inside=inside, cloud=PlaneState.COMPLETE)


def joined(*estates):
    clusters = Clusters()
    for estate in estates:
        clusters.join(estate, estate.cluster)
    return [r.cluster for r in clusters.rows]


READ = {"uid": "u1", "inside": PlaneState.COMPLETE}


@pytest.mark.parametrize(
    "pair",
    [
        (azure(uid="u1"), row("ctx", **READ)),
        (azure(*server_keys(NAME, None)), row("ctx", *server_keys(NAME.upper(), CA), **READ)),
        (azure(*server_keys("https://10.1.2.3", CA)), row("ctx", *server_keys("https://10.0.0.1", CA), **READ)),
        (azure(), row("ctx", f"id:{ARM.lower()}", **READ)),
    ],
    ids=["uid", "name of the API server", "authority", "cloud id"],
)
@pytest.mark.parametrize("order", [0, 1])
def test_one_cluster_however_it_was_reached(pair, order):
    (found,) = joined(*(pair if order else reversed(pair)))
    assert (found.id, found.cloud_id, found.uid, found.name) == (ARM.lower(), ARM, "u1", "shop")
    assert (found.control_plane, found.data_plane) == (PlaneState.COMPLETE, PlaneState.COMPLETE)


@pytest.mark.parametrize(
    "pair",
    [
        (row("a", "ca:1", uid="u1"), row("b", "ca:1", uid="u2")),
        (azure(*server_keys("https://10.0.0.1", None)), row("b", *server_keys("https://10.0.0.1", None), **READ)),
        (azure(*server_keys("https://kubernetes.default.svc", None)),
         row("b", *server_keys("https://kubernetes.default.svc", None), **READ)),
        (azure(*server_keys("https://localhost:6443", None)),
         row("b", *server_keys("https://localhost:6443", None), **READ)),
        (azure(*server_keys("https://proxy.example.com/k8s/clusters/c-1", None)),
         row("b", *server_keys("https://proxy.example.com/k8s/clusters/c-2", None), **READ)),
        (azure("ca:1"), row("b", "ca:1", id="other", cloud_id="/subscriptions/s/other")),
    ],
    ids=["two uids", "an address that means something else elsewhere", "in-cluster name", "this machine", "a proxy",
         "two cloud ids"],
)  # fmt: skip
def test_two_clusters_stay_two(pair):
    assert len(joined(*pair)) == 2
    assert len(joined(*reversed(pair))) == 2


def test_one_of_several_behind_a_proxy_is_not_guessed():
    for order in itertools.permutations(range(3)):
        proxied = [row("a", "ca:1", uid="u1"), row("b", "ca:1", uid="u2"), row("unread", "ca:1")]
        assert len(joined(*(proxied[i] for i in order))) == 3


def test_a_cloud_cluster_is_not_guessed_to_be_one_of_two():
    for order in itertools.permutations(range(3)):
        estates = [row("a", "ca:1", uid="u1"), row("b", "ca:1", uid="u2"), azure("ca:1")]
        rows = joined(*(estates[i] for i in order))
        assert {r.uid for r in rows} >= {"u1", "u2"}
    assert len(joined(row("a", "ca:1", uid="u1"), row("b", "ca:1", uid="u2"), azure("ca:1"))) == 3


def test_a_trailing_slash_and_the_default_port_make_no_difference():
    assert server_keys("https://a.example.com:443/x/", None) == server_keys("https://A.example.com/x", None)


def test_a_cluster_elsewhere_that_is_connected_to_azure_counts_once_under_the_name_its_own_cloud_gave():
    def arc():
        return row("shop-arc", id=ARC.lower(), cloud_id=ARC, cloud=PlaneState.COMPLETE, inside=PlaneState.NOT_ASKED)

    for order in itertools.permutations(range(3)):
        eks = row("shop-eks", f"id:{ARC.lower()}", id="arn:x", cloud_id="arn:x", cloud=PlaneState.COMPLETE, **READ)
        estates = (arc(), eks, row("ctx", **READ))
        (found,) = joined(*(estates[i] for i in order))
        assert (found.id, found.uid, found.data_plane) == ("arn:x", "u1", PlaneState.COMPLETE)
    (found,) = joined(arc(), row("ctx", f"id:{ARC.lower()}", **READ))
    assert (found.id, found.data_plane) == (ARC.lower(), PlaneState.COMPLETE)


def test_a_third_reading_brings_two_rows_together():
    clusters = Clusters()
    first, _ = clusters.join(row("ctx", **READ), row("ctx", **READ).cluster)
    second, _ = clusters.join(azure(), azure().cluster)
    assert len(clusters.rows) == 2
    bridge = azure(uid="u1")
    clusters.join(bridge, bridge.cluster)
    (only,) = clusters.rows
    assert clusters.row_of(first) is clusters.row_of(second) is only
    assert "u1" in only.former


@pytest.mark.parametrize("server", ["https://[::1", "https://a.b:x", "", "https://", "a\nb"])
def test_what_is_no_url_is_no_key(server):
    assert [key for key in server_keys(server, CA) if not key.startswith("ca:")] == []


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("complete", "not_read", "complete"),
        ("complete", "not_asked", "complete"),
        ("complete", "partial", "partial"),
        ("partial", "not_read", "partial"),
        ("not_read", "not_asked", "not_read"),
        ("not_asked", "not_asked", "not_asked"),
    ],
)
def test_planes_of_two_looks(one, other, both):
    for a, b in ((one, other), (other, one)):
        (found,) = joined(row("a", uid="u", inside=PlaneState(a)), row("b", uid="u", inside=PlaneState(b)))
        assert found.data_plane == both
