"""What is due when, as values."""

from derms.field.agenda import Agenda


def test_what_is_due_comes_once_and_the_earliest_first() -> None:
    agenda = Agenda[str]()
    for key, at_s in {"late": 30.0, "early": 10.0, "never": float("inf"), "beside": 10.0}.items():
        agenda.put(key, at_s)
    assert agenda.due(9.9) == []
    assert agenda.due(10.0) == ["early", "beside"]
    assert agenda.due(10.0) == []
    assert agenda.due(1e9) == ["late"]


def test_what_is_put_anew_is_due_at_its_new_time_only() -> None:
    agenda = Agenda[str]()
    agenda.put("sooner", 20.0)
    agenda.put("later", 10.0)
    agenda.put("sooner", 5.0)
    agenda.put("later", 30.0)
    assert [agenda.due(float(now_s)) for now_s in (5, 10, 20, 30)] == [["sooner"], [], [], ["later"]]


def test_what_is_put_again_at_the_same_time_is_due_once() -> None:
    agenda = Agenda[str]()
    agenda.put("twice", 5.0)
    agenda.put("twice", 5.0)
    assert agenda.due(5.0) == ["twice"]
