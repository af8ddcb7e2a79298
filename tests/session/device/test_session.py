"""The life of a device session: start, hello, faults, errors, end (D5, D7; §5 and §13 of the protocol)."""

from relay.session.common.input_control import MAX_HELD_MS
from relay.session.common.limits import MAX_FAULTS
from relay.session.common.model import AudioFormat, DeviceOptions, Item, SessionConfig, ToolSpec
from relay.session.common.policy import Policy, Principal
from relay.session.common.session_state import Phase
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_session_harness import MANUAL, DeviceSessionHarness, call, done, kinds, microphone, only
from tests.support.media import InputAudio


def test_the_session_is_conmetricd_when_the_upstream_has_created_the_session() -> None:
    harness = DeviceSessionHarness(SessionConfig(voice="marin"))
    assert harness.feed(ev.UpstreamOpened()) == []
    [configure] = harness.feed(ev.SessionCreated())
    assert isinstance(configure, cmd.ConfigureSession)
    assert configure.config.voice == "marin"
    [connected] = harness.feed(ev.SessionUpdated())
    assert connected == cmd.SendConnected("rs_test", DeviceOptions())


def test_an_engine_that_learns_from_examples_gets_them() -> None:
    [configure] = DeviceSessionHarness().feed(ev.SessionCreated(engine="relay-local"))
    assert configure.include_examples is True
    [configure] = DeviceSessionHarness().feed(ev.SessionCreated(model="gpt-realtime"))
    assert configure.include_examples is False


def test_audio_before_the_session_is_ready_is_kept_in_order() -> None:
    harness = DeviceSessionHarness()
    early = [microphone(20), microphone(40)]
    assert harness.feed(*early) == []
    commands = harness.feed(ev.SessionCreated(), ev.SessionUpdated())
    assert [frame.n_bytes for frame in only(commands, InputAudio)] == [one.n_bytes for one in early]


def test_too_much_early_audio_loses_its_oldest_part_and_says_so() -> None:
    harness = DeviceSessionHarness(MANUAL)
    harness.feed(*[microphone(100) for _ in range(MAX_HELD_MS // 100 + 5)])
    harness.feed(ev.Commit())
    commands = harness.feed(ev.SessionCreated(), ev.SessionUpdated())
    kept_ms = sum(frame.n_bytes for frame in only(commands, InputAudio)) / 32
    assert kept_ms == MAX_HELD_MS
    [error] = only(commands, cmd.SendError)
    assert (error.code, "500 ms" in error.message) == ("audio_backlog", True)
    assert only(commands, cmd.CommitInput), "control messages are never dropped"


def test_a_typed_turn_before_the_session_is_ready_waits_for_it() -> None:
    harness = DeviceSessionHarness()
    harness.feed(ev.UserText("hello"))
    commands = harness.feed(ev.SessionCreated(), ev.SessionUpdated())
    assert kinds(commands)[-2:] == ["CreateItem", "CreateResponse"]


def test_an_upstream_that_never_gets_ready_ends_the_session() -> None:
    harness = DeviceSessionHarness()
    deadline = harness.session.deadline
    assert deadline is not None
    commands = harness.feed(ev.DeadlineReached(), after_s=deadline)
    assert commands[0].code == "upstream_timeout"
    assert only(commands, cmd.CloseClient) == [cmd.CloseClient(1011, "the upstream was not ready in time")]


def test_a_refused_connection_is_an_error_and_a_close() -> None:
    commands = DeviceSessionHarness().feed(
        ev.UpstreamRefused(401, "The endpoint refused the connection with 401.", retryable=False)
    )
    assert kinds(commands) == ["SendError", "CloseClient", "CancelAllTools", "CloseUpstream"]
    assert (commands[0].code, commands[0].retryable) == ("upstream_refused", False)
    assert commands[1] == cmd.CloseClient(1011, "the upstream refused the connection")


def test_an_unreachable_upstream_is_not_called_a_refusal() -> None:
    commands = DeviceSessionHarness().feed(ev.UpstreamRefused(None, "The upstream is unreachable.", retryable=True))
    assert (commands[0].code, commands[0].retryable) == ("upstream_unreachable", True)
    assert commands[1] == cmd.CloseClient(1011, "the upstream is unreachable")


def test_hello_changes_the_active_settings_and_is_answered() -> None:
    harness = DeviceSessionHarness().ready()
    pcm24 = AudioFormat("pcm16", 24_000)
    hello = ev.Hello(
        fields_set=("input", "output", "voice", "language"), input=pcm24, output=pcm24, voice="cedar", language="German"
    )
    commands = harness.feed(hello)
    assert commands[0] == cmd.ApplyOptions(DeviceOptions(pcm24, pcm24))
    assert commands[1].config.voice == "cedar"
    assert commands[1].config.full_instructions == "Always reply in German."
    [ready] = harness.feed(ev.SessionUpdated())
    assert (ready.options.output, ready.config.voice) == (pcm24, "cedar")


def test_hello_that_changes_only_our_side_is_answered_at_once() -> None:
    commands = DeviceSessionHarness().ready().feed(ev.Hello(fields_set=("maxAheadMs",), max_ahead_ms=None))
    assert kinds(commands) == ["ApplyOptions", "SendReady"]
    assert commands[1].options.max_ahead_ms is None


def test_hello_while_connecting_is_part_of_the_first_configuration() -> None:
    harness = DeviceSessionHarness()
    harness.feed(ev.Hello(fields_set=("turn",), turn="manual"))
    [configure] = harness.feed(ev.SessionCreated())
    assert configure.config.turn.kind == "manual"
    assert kinds(harness.feed(ev.SessionUpdated())) == ["SendConnected", "SendReady"]


def test_hello_while_the_first_configuration_is_pending_waits_for_both() -> None:
    harness = DeviceSessionHarness()
    harness.feed(ev.SessionCreated())
    commands = harness.feed(ev.Hello(fields_set=("voice",), voice="cedar"))
    assert kinds(commands) == ["ApplyOptions", "ConfigureSession"]
    assert harness.feed(ev.SessionUpdated()) == []
    assert kinds(harness.feed(ev.SessionUpdated())) == ["SendConnected", "SendReady"]
    assert harness.session.config.voice == "cedar"


def test_hello_after_audio_is_too_late_and_costs_nothing_else() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(microphone())
    [error] = harness.feed(ev.Hello(fields_set=("voice",), voice="cedar"))
    assert error.code == "hello_too_late"
    assert harness.session.state.phase is Phase.READY


def test_a_field_that_the_policy_refuses_is_one_error_and_the_rest_is_active() -> None:
    policy = Policy("kiosk", hello_fields=frozenset({"language"}))
    harness = DeviceSessionHarness(principal=Principal("kiosk-1", policy)).ready()
    commands = harness.feed(ev.Hello(fields_set=("voice", "language"), voice="cedar", language="French"))
    assert (commands[0].code, commands[0].field) == ("not_allowed", "voice")
    [configure] = only(commands, cmd.ConfigureSession)
    assert (configure.config.voice, configure.config.language) == (None, "French")


def test_a_hello_that_the_upstream_refuses_keeps_the_old_settings_active() -> None:
    harness = DeviceSessionHarness(SessionConfig(voice="marin")).ready()
    [_, configure] = harness.feed(ev.Hello(fields_set=("voice",), voice="nobody"))
    commands = harness.feed(ev.UpstreamErrorEvent("invalid_value", "no such voice", event_id=configure.event_id))
    assert kinds(commands) == ["SendError", "ApplyOptions", "SendReady"]
    assert (commands[0].code, commands[2].config.voice) == ("hello_refused", "marin")


def test_a_refused_format_is_rolled_back_on_our_side_too() -> None:
    harness = DeviceSessionHarness().ready()
    pcmu = AudioFormat("pcmu", 8000)
    [_, configure] = harness.feed(ev.Hello(fields_set=("input", "output"), input=pcmu, output=pcmu))
    commands = harness.feed(ev.UpstreamErrorEvent("invalid_value", "no such format", event_id=configure.event_id))
    assert only(commands, cmd.ApplyOptions) == [cmd.ApplyOptions(DeviceOptions())]
    assert only(commands, cmd.SendReady)[0].options == DeviceOptions()


def test_what_was_accepted_before_a_refused_hello_is_active_in_all_parts() -> None:
    harness = DeviceSessionHarness().ready()
    door = ToolSpec("door", "Opens.", {"type": "object"}, runs_on_client=True)
    harness.feed(ev.Hello(("tools",), tools=(door,)))
    [_, second] = harness.feed(ev.Hello(("language",), language="French"))
    assert harness.feed(ev.SessionUpdated()) == [], "the other one is still pending"
    harness.feed(ev.UpstreamErrorEvent("invalid_value", "No.", event_id=second.event_id))
    assert [tool.name for tool in harness.session.config.tools] == ["door"]
    called = harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", call("call_1", "door")))
    assert [one.name for one in only(called, cmd.SendToolCall)] == ["door"]


def test_a_hello_that_the_upstream_never_answers_is_abandoned() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.Hello(fields_set=("voice",), voice="cedar"), ev.UserText("hello"))
    deadline = harness.session.deadline
    assert deadline is not None
    commands = harness.feed(ev.DeadlineReached(), after_s=deadline)
    assert kinds(commands) == ["SendError", "ApplyOptions", "SendReady", "CreateItem", "CreateResponse"]
    assert commands[0].code == "hello_refused"


def test_every_hello_is_answered() -> None:
    harness = DeviceSessionHarness()
    harness.feed(ev.Hello(fields_set=("voice",), voice="a"), ev.Hello(fields_set=("voice",), voice="b"))
    commands = harness.feed(ev.SessionCreated(), ev.SessionUpdated())
    assert [one.config.voice for one in only(commands, cmd.SendReady)] == ["b", "b"]


def test_settings_that_the_upstream_refuses_at_the_start_end_the_session_with_its_message() -> None:
    harness = DeviceSessionHarness()
    [configure] = harness.feed(ev.SessionCreated())
    commands = harness.feed(ev.UpstreamErrorEvent("invalid_value", "no such model", event_id=configure.event_id))
    assert (commands[0].code, commands[0].message) == ("session_refused", "no such model")
    assert only(commands, cmd.CloseClient)


def test_benign_errors_are_counted_and_end_nothing() -> None:
    harness = DeviceSessionHarness().ready()
    for code in ("response_cancel_not_active", "item_truncate_invalid_item_id", "input_audio_buffer_commit_empty"):
        assert harness.feed(ev.UpstreamErrorEvent(code, "too late")) == []
    assert harness.session.state.phase is Phase.READY
    assert harness.session.ignored["error response_cancel_not_active"] == 1


def test_an_error_that_is_not_known_is_reported_and_ends_nothing() -> None:
    harness = DeviceSessionHarness().ready()
    [error] = harness.feed(ev.UpstreamErrorEvent("something_new", "odd", param="session.foo"))
    assert (error.code, error.field, error.retryable) == ("upstream_error", "session.foo", True)
    assert harness.session.state.phase is Phase.READY


def test_a_fatal_error_ends_the_session() -> None:
    for code in ("insufficient_quota", "invalid_api_key", "session_expired"):
        harness = DeviceSessionHarness().ready()
        commands = harness.feed(ev.UpstreamErrorEvent(code, "no more"))
        assert only(commands, cmd.CloseClient), code
        assert harness.session.state.phase is Phase.ENDED


def test_unknown_and_malformed_events_are_counted_and_ignored() -> None:
    harness = DeviceSessionHarness().ready()
    assert harness.feed(ev.IgnoredUpstreamEvent("response.new_thing"), ev.MalformedUpstreamMessage("not JSON")) == []
    assert harness.session.ignored == {"response.new_thing": 1, "(malformed)": 1}


def test_a_fault_is_one_error_and_ten_in_a_minute_end_the_session() -> None:
    harness = DeviceSessionHarness().ready()
    fault = ev.ClientProtocolError("bad_json", "That is not JSON.")
    for _ in range(MAX_FAULTS - 1):
        assert kinds(harness.feed(fault)) == ["SendError"]
    commands = harness.feed(fault)
    assert [one.code for one in only(commands, cmd.SendError)] == ["bad_json", "too_many_faults"]
    assert only(commands, cmd.CloseClient) == [cmd.CloseClient(1008, "too many faults")]


def test_faults_far_apart_are_forgiven() -> None:
    harness = DeviceSessionHarness().ready()
    for _ in range(3 * MAX_FAULTS):
        assert kinds(harness.feed(ev.ClientProtocolError("bad_json", "no"), after_s=10)) == ["SendError"]


def test_playback_of_an_item_never_seen_is_a_fault_and_a_late_one_is_not() -> None:
    harness = DeviceSessionHarness().ready()
    [error] = harness.feed(ev.Playback("item_x", 10))
    assert (error.code, error.field) == ("unknown_item", "itemId")
    harness.model_speaks(ms=100)
    harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0), ev.Playback("item_1", 100))
    assert harness.feed(ev.Playback("item_1", 100)) == []


def test_the_upstream_closing_is_reported_with_its_code_and_mapped_for_the_wire() -> None:
    commands = DeviceSessionHarness().ready().feed(ev.UpstreamClosed(1006))
    assert "1006" in commands[0].message
    assert only(commands, cmd.CloseClient)[0].code == 1011


def test_the_client_leaving_frees_everything() -> None:
    harness = DeviceSessionHarness().ready()
    assert kinds(harness.feed(ev.ClientClosed(1006))) == ["CancelAllTools", "CloseUpstream"]
    assert harness.feed(ev.SpeechStarted("item_1"), ev.DeadlineReached(), microphone()) == []
    assert harness.session.deadline is None


def test_bye_is_a_normal_end() -> None:
    assert only(DeviceSessionHarness().ready().feed(ev.Bye()), cmd.CloseClient) == [cmd.CloseClient(1000, "bye")]


def test_a_shutdown_says_goodbye_first() -> None:
    commands = DeviceSessionHarness().ready().feed(ev.ServerDraining("the relay is restarting"))
    assert kinds(commands)[:2] == ["SendGoodbye", "CloseClient"]
    assert commands[1].code == 1001


def test_a_revoked_key_ends_its_session_with_an_error_first() -> None:
    commands = DeviceSessionHarness().ready().feed(ev.KeyRevoked())
    assert kinds(commands)[:2] == ["SendError", "CloseClient"]
    assert (commands[0].code, commands[0].retryable) == ("key_revoked", False)
    assert [close.code for close in only(commands, cmd.CloseClient)] == [1008]


def test_the_users_transcripts_carry_their_place_however_late_they_come() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.InputCommitted("item_user"), ev.ItemAdded(Item("item_user", "message", "user")))
    harness.model_speaks(item="item_answer")
    [answer] = harness.feed(ev.TextDone("resp_1", "item_answer", 0, "It is nine.", spoken=True))
    [question] = harness.feed(ev.UserTranscript("item_user", "What time is it?", final=True))
    assert question.order < answer.order
    assert (question.role, answer.role, question.final) == ("user", "assistant", True)


def test_what_was_typed_is_in_the_transcript() -> None:
    harness = DeviceSessionHarness().ready()
    [told] = harness.feed(ev.ItemAdded(Item("item_1", "message", "user", text="hello there")))
    assert told == cmd.SendTranscript("user", "item_1", 0, "hello there", final=True)
