from agent.configuration.engine_section import merged_section
from agent.configuration.model import Group


def group(members: dict[str, object], postgres: dict[str, object] | None) -> Group:
    return Group.model_validate({"engine": "postgres", "members": members, "postgres": postgres})


def test_a_problem_is_where_its_key_was_written() -> None:
    judged = merged_section(group({"a": {"port": 0}}, {"data_dir": "relative", "socket_dir": "/x"}), "a", "g", {})
    assert {problem.path for problem in judged.problems} == {
        ("groups", "g", "members", "a", "port"),
        ("groups", "g", "postgres", "data_dir"),
    }


def test_what_is_missing_is_missing_in_the_groups_section_if_there_is_one() -> None:
    missing = [problem.path for problem in merged_section(group({"a": {}}, {"data_dir": "/x"}), "a", "g", {}).problems]
    assert missing == [("groups", "g", "postgres", "socket_dir")]
    missing = [problem.path for problem in merged_section(group({"a": {"data_dir": "/x"}}, None), "a", "g", {}).problems]
    assert missing == [("groups", "g", "members", "a", "socket_dir")]
