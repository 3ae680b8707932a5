"""Where a task goes (RT, RTE, 4ROU-30..38, EX-37, N-069..073)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue

from qcore.errors import ImproperlyConfigured, QueueNotFound
from qcore.queues import Queues
from qcore.routing import MapRoute, Router, prepare
from qcore.settings import Settings


def make(**settings):
    conf = Settings(default_module=None, environ={})
    conf.update(settings)
    return Router(conf, Queues.from_settings(conf))


def queue_of(router, name, options=None, **kwargs):
    return router.route(options or {}, name, **kwargs)["queue"].name


def test_without_routes_the_default_queue_is_used():
    assert queue_of(make(), "proj.add") == "celery"
    assert queue_of(make(task_default_queue="default"), "proj.add") == "default"


ROUTES = {
    "q.ping": "default",
    "mytasks.add": "cpu-bound",
    "feed.tasks.*": "feeds",
    re.compile(r"(image|video)\.tasks\..*"): "media",
    "video.encode": {"queue": "video", "exchange": "media", "routing_key": "media.video.encode"},
}


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        ("q.ping", "default"),
        ("mytasks.add", "cpu-bound"),
        ("feed.tasks.import_feed", "feeds"),
        ("video.tasks.compress", "media"),
        ("my.video.tasks.compress", "celery"),
        ("video.encode", "video"),
        ("mytasks.add2", "celery"),
    ],
)
def test_maps_of_names_globs_and_patterns(name, queue):
    assert queue_of(make(task_routes=ROUTES), name) == queue


def test_further_options_of_a_route_are_kept():
    options = make(task_routes=ROUTES).route({}, "video.encode")
    assert (options["exchange"], options["routing_key"]) == ("media", "media.video.encode")


def test_patterns_are_tried_in_order():
    routes = ([("a.*", {"queue": "first"}), ("a.b.*", {"queue": "second"}), (re.compile("c"), "third")],)
    router = make(task_routes=routes)
    assert queue_of(router, "a.b.c") == "first"
    assert queue_of(router, "c.d") == "third"


def test_a_bare_list_of_pairs_is_one_router():
    router = make(task_routes=[("a.*", "first"), ("b", {"queue": "second"})])
    assert queue_of(router, "a.x") == "first"
    assert queue_of(router, "b") == "second"


@pytest.mark.parametrize("name", ["what?", "x[1]", "a.b+c"])
def test_only_the_asterisk_is_special(name):
    assert MapRoute({name: "q"})(name) == "q"
    assert MapRoute({f"{name}*": "q"})(f"{name}!") == "q"
    assert MapRoute({f"{name}*": "q"})("whatx") is None


@given(st.text(alphabet="ab.*?[", min_size=1, max_size=8), st.text(alphabet="ab.?[", max_size=8))
def test_globs_agree_with_their_definition(pattern, name):
    def matches(parts, text):
        if len(parts) == 1:
            return text == parts[0]
        if not text.startswith(parts[0]):
            return False
        rest = text[len(parts[0]) :]
        return any(matches(parts[1:], rest[i:]) for i in range(len(rest) + 1))

    assert (MapRoute({pattern: "q"})(name) is not None) == matches(pattern.split("*"), name)


def test_functions_decide_by_arguments():
    seen = []

    def route(name, args, kwargs, options, task=None, **kw):
        seen.append((name, args, kwargs, options, task))
        return {"queue": "hipri", "priority": 9} if args == (1,) else None

    router = make(task_routes=route)
    options = router.route({"serializer": "json"}, "proj.add", (1,), {"a": 2}, "the task")
    assert (options["queue"].name, options["priority"]) == ("hipri", 9)
    assert queue_of(router, "proj.add") == "celery"
    assert seen[0] == ("proj.add", (1,), {"a": 2}, {"serializer": "json"}, "the task")
    assert seen[1][4] is None


def test_functions_with_star_arguments():
    assert queue_of(make(task_routes=lambda name, *args, **kwargs: "x"), "t") == "x"


def dotted_router(name, args, kwargs, options, task=None, **kw):
    return "dotted"


class ByMethod:
    def route_for_task(self, name, args=None, kwargs=None):
        return "method"


def test_dotted_names_classes_and_objects(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "routers_here", sys.modules[__name__])
    for routes, queue in [
        ("routers_here:dotted_router", "dotted"),
        (("routers_here.dotted_router", {"x": "y"}), "dotted"),
        (ByMethod, "method"),
        (ByMethod(), "method"),
        (["routers_here:ByMethod"], "method"),
    ]:
        assert queue_of(make(task_routes=routes), "t") == queue


def test_the_first_router_that_decides_wins():
    router = make(task_routes=(lambda *a, **k: None, {"t": "second"}, {"t": "third"}))
    assert queue_of(router, "t") == "second"


def test_an_empty_route_leads_to_the_default_queue():
    assert queue_of(make(task_routes=({"t": {}}, {"t": "never"})), "t") == "celery"


@pytest.mark.parametrize("routes", [3, [3], {3: "x"}, "no_such_module.router"])
def test_other_things_are_refused(routes):
    with pytest.raises(ImproperlyConfigured):
        make(task_routes=routes).route({}, "t")


def test_options_of_the_call_win_over_the_route():
    router = make(task_routes={"t": {"immediate": True, "exchange": "urgent", "priority": 3}})
    options = router.route({"immediate": False, "exchange": "video", "routing_key": "video.compress"}, "t")
    assert options == {
        "immediate": False,
        "exchange": "video",
        "routing_key": "video.compress",
        "priority": 3,
    }


def test_options_that_are_none_do_not_count():
    options = make(task_routes={"t": {"queue": "x", "priority": 3}}).route(
        {"queue": None, "priority": None}, "t"
    )
    assert (options["queue"].name, options["priority"]) == ("x", 3)


def test_the_queue_of_the_call_wins():
    assert queue_of(make(task_routes={"t": "x"}), "t", {"queue": "y"}) == "y"


def test_routes_win_over_queue_definitions():
    router = make(
        task_queues={"cpubound": {"exchange": "cpubound", "routing_key": "cpubound"}},
        task_routes={"tasks.add": {"queue": "cpubound", "routing_key": "tasks.add", "serializer": "json"}},
    )
    options = router.route({}, "tasks.add")
    assert options["queue"].exchange.name == "cpubound"
    assert (options["routing_key"], options["serializer"]) == ("tasks.add", "json")


def test_queue_objects_are_taken_as_they_are():
    queue = Queue("zz", Exchange("zx"), routing_key="zk")
    router = make(task_routes={"t": {"queue": queue}})
    assert router.route({}, "t")["queue"] is queue
    assert router.route({"queue": queue}, "other")["queue"] is queue


def test_a_route_with_an_exchange_needs_no_queue():
    assert make(task_routes={"t": {"exchange": "C.dq", "routing_key": "w1@h"}}).route({}, "t") == {
        "exchange": "C.dq",
        "routing_key": "w1@h",
    }


def test_unknown_queues_are_refused_when_none_may_be_made():
    router = make(task_create_missing_queues=False, task_routes={"t": "x"})
    with pytest.raises(QueueNotFound, match="task_create_missing_queues"):
        router.route({}, "t")
    with pytest.raises(QueueNotFound):
        router.route({"queue": "y"}, "other")
    assert queue_of(router, "other") == "celery"


def test_neither_options_nor_routes_are_changed():
    route = {"queue": "x", "priority": 1}
    router = make(task_routes={"t": route})
    given_options = {"priority": None}
    result = router.route(given_options, "t")
    result["priority"] = 7
    assert given_options == {"priority": None}
    assert route == {"queue": "x", "priority": 1}
    assert router.route({}, "t")["priority"] == 1


def test_new_settings_take_effect():
    router = make(task_routes={"t": "x"})
    assert queue_of(router, "t") == "x"
    router.conf.task_routes = {"t": "y"}
    assert queue_of(router, "t") == "y"
    router.conf.task_default_queue = "other"
    assert queue_of(router, "unrouted") == "other"


def test_a_queue_declared_later_takes_effect():
    router = make(task_routes={"t": "x"})
    assert router.route({}, "t")["queue"].exchange.name == "x"
    router.queues.add("x", exchange="special", routing_key="k")
    assert router.route({}, "t")["queue"].exchange.name == "special"


def test_expand_destination():
    router = make()
    assert router.expand_destination("x")["queue"].name == "x"
    expanded = router.expand_destination({"queue": "x", "routing_key": "k"})
    assert (expanded["queue"].name, expanded["routing_key"]) == ("x", "k")
    assert router.expand_destination({"exchange": "e"}) == {"exchange": "e"}


def test_lookup_route_shows_the_raw_route():
    router = make(task_routes={"t": "x"})
    assert router.lookup_route("t") == "x"
    assert router.lookup_route("u") is None


def test_prepare_of_nothing():
    assert prepare(None) == []
    assert prepare([]) == []
