"""Room for unfinished messages: who gets it, who waits for it, and who gives it up."""

import asyncio

from relay.transport.read_budget import BudgetHolder, ReadBudget


class Connection(BudgetHolder):
    """Remembers what the budget does to it."""

    def __init__(self, owner: str = "a") -> None:
        super().__init__(owner)
        self.log: list[str] = []
        self.was_cut = asyncio.Event()

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def close_stalled(self) -> None:
        self.log.append("cut")
        self.was_cut.set()


async def test_messages_that_fit_never_wait() -> None:
    budget = ReadBudget(max_bytes=100)
    first, second = Connection("a"), Connection("b")
    budget.reserve(first, 40)
    budget.reserve(second, 49)
    assert budget.reserved_bytes == 89
    budget.release(first)
    budget.release(second)
    assert (budget.reserved_bytes, first.log, second.log) == (0, [], [])


async def test_who_finds_no_room_waits_until_somebody_is_done() -> None:
    budget = ReadBudget(max_bytes=100)
    first, second, third = Connection("a"), Connection("b"), Connection("c")
    budget.reserve(first, 45)
    budget.reserve(second, 45)
    budget.reserve(third, 20)
    assert third.log == ["pause"]
    budget.release(first)
    assert third.log == ["pause", "resume"]
    budget.release(third)
    budget.release(second)


async def test_the_message_that_arrives_for_longest_always_goes_on() -> None:
    budget = ReadBudget(max_bytes=100)
    connections = [Connection(f"owner {number}") for number in range(5)]
    for connection in connections:
        budget.reserve(connection, 30)
    assert [bool(one.log) for one in connections] == [False, False, False, True, True]
    budget.reserve(connections[0], 49)
    assert connections[0].log == []
    budget.reserve(connections[1], 31)
    assert connections[1].log == ["pause"]
    for connection in connections:
        budget.release(connection)


async def test_one_owner_leaves_half_of_it_to_the_others() -> None:
    budget = ReadBudget(max_bytes=100)
    greedy = [Connection("greedy") for _ in range(3)]
    for connection in greedy:
        budget.reserve(connection, 25)
    other = Connection("other")
    budget.reserve(other, 20)
    assert [one.log for one in greedy] == [[], ["pause"], ["pause"]]
    assert other.log == []
    for connection in (*greedy, other):
        budget.release(connection)


async def test_who_holds_up_others_for_too_long_is_cut() -> None:
    budget = ReadBudget(max_bytes=100, stall_timeout_s=0.01)
    slow, second, waiting = Connection("a"), Connection("b"), Connection("c")
    budget.reserve(slow, 48)
    budget.reserve(second, 48)
    budget.reserve(waiting, 10)
    async with asyncio.timeout(5):
        await slow.was_cut.wait()
    assert (slow.log, second.log, waiting.log) == (["cut"], [], ["pause", "resume"])
    budget.release(second)
    budget.release(waiting)


async def test_each_message_has_its_own_time_however_long_others_have_waited() -> None:
    budget = ReadBudget(max_bytes=100, stall_timeout_s=0.2)
    first, second, waiting = Connection("a"), Connection("b"), Connection("c")
    budget.reserve(first, 48)
    budget.reserve(second, 48)
    budget.reserve(waiting, 10)
    await asyncio.sleep(0.15)
    budget.reserve(waiting, 60)
    budget.release(first)
    assert second.log == []
    await asyncio.sleep(0.1)  # the first would have been cut by now
    assert second.log == []
    budget.release(second)
    budget.release(waiting)


async def test_whoever_is_resumed_may_be_done_at_once() -> None:
    budget = ReadBudget(max_bytes=100)

    class Quick(Connection):
        def resume(self) -> None:
            super().resume()
            budget.release(self)

    first = Connection("first")
    others = [Quick(f"owner {number}") for number in range(3)]
    budget.reserve(first, 100)
    for connection in others:
        budget.reserve(connection, 1)
    budget.release(first)
    assert [one.log for one in others] == [["pause", "resume"]] * 3
    assert budget.reserved_bytes == 0


async def test_who_waits_for_its_own_share_cuts_nobody_else() -> None:
    budget = ReadBudget(max_bytes=100, stall_timeout_s=0.01)
    other, mine, more_of_mine = Connection("other"), Connection("mine"), Connection("mine")
    budget.reserve(other, 10)
    budget.reserve(mine, 49)
    budget.reserve(more_of_mine, 10)
    async with asyncio.timeout(5):
        await mine.was_cut.wait()
    assert other.log == []
    for connection in (other, more_of_mine):
        budget.release(connection)


async def test_nobody_is_cut_while_nobody_waits() -> None:
    budget = ReadBudget(max_bytes=100, stall_timeout_s=0.01)
    slow, waiting = Connection("a"), Connection("b")
    budget.reserve(slow, 100)
    budget.reserve(waiting, 1)
    assert waiting.log == ["pause"]
    budget.release(waiting)  # it has left
    await asyncio.sleep(0.03)  # longer than anybody would wait
    assert slow.log == []
    budget.release(slow)


async def test_a_message_that_becomes_whole_while_it_waits_is_read_on() -> None:
    budget = ReadBudget(max_bytes=100)
    first, waiting = Connection("a"), Connection("b")
    budget.reserve(first, 100)
    budget.reserve(waiting, 10)
    budget.release(waiting)
    assert waiting.log == ["pause", "resume"]
    budget.release(first)
    assert waiting.log == ["pause", "resume"]


async def test_a_connection_that_is_gone_holds_nothing_and_can_be_released_again() -> None:
    budget = ReadBudget(max_bytes=100)
    gone = Connection()
    budget.reserve(gone, 60)
    budget.release(gone)
    budget.release(gone)
    assert budget.reserved_bytes == 0
