"""A function is followed on each of its ways, and by what its variables stand for."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from training.modules.updates import Updates, updates_by

#: Functions that read ``h`` before they write it.
UPDATING = {
    "in finally, after a return": """
        try:
            return x + self.h
        finally:
            self.h = x
    """,
    "in finally, after a return of a loop": """
        try:
            for each in x:
                if each:
                    return each + self.h
                break
        finally:
            self.h = x
    """,
    "in the else of for": """
        for each in x:
            y = each + self.h
            if y:
                continue
        else:
            self.h = x
    """,
    "in the else of while": """
        while x > 0:
            x = x - self.h
        else:
            self.h = x
    """,
    "behind a variable that stands for nothing by then": """
        st = self.st
        st = None
        self.st.h = self.st.h + x
    """,
    "before an error, whose handler writes it": """
        try:
            y = x(self.h)
        except ValueError:
            self.h = x
    """,
    "in another turn, after a continue": """
        for each in x:
            if each:
                y = each + self.h
                continue
            self.h = each
    """,
    "after a break": """
        while True:
            if x:
                y = self.h
                break
        self.h = y
    """,
    "in a default": """
        def inner(h=self.h):
            return h + x
        self.h = inner()
    """,
    "in a default of a lambda": """
        inner = lambda h=self.h: h + x
        self.h = inner()
    """,
    "in a decorator": """
        @x(self.h)
        def inner():
            pass
        self.h = inner
    """,
    "in an inner function": """
        def inner():
            return self.h + x
        self.h = inner()
    """,
    "read by a variable": """
        st = self.st
        y = st.h + x
        self.st.h = y
    """,
    "written by a variable": """
        me, last = self, x
        me.h = self.h + last
    """,
    "an item by a variable": """
        own = self.h
        self.h[0] = own[0] + x
    """,
    "in a variable that stands for it on the first of two ways": """
        if x:
            st = self.st
        else:
            st = x.other
        st.h = st.h + x
    """,
    "in a variable that stands for it on the last of two ways": """
        if x:
            st = x.other.h
        else:
            st = self.h
        st[0] = 0.9 * st[0] + x
    """,
    "in a variable that stands for another on one way": """
        st = self.h
        if x:
            st = self.other
        st["mean"] = 0.9 * st["mean"] + x
    """,
    "in a variable that stands for it in one case": """
        match x:
            case 1:
                st = self.other
            case 2:
                st = self.h
            case _:
                st = self.last
        st[0] = st[0] + x
    """,
    "in a variable that is given one of two": """
        st = self.other if x else self.h
        st[0] = 0.9 * st[0] + x
    """,
    "appended to by a variable that is one of two": """
        queue = self.other if x else self.h
        queue.append(x)
        return sum(self.h)
    """,
    "appended to by a variable": """
        queue = self.h
        queue.append(x)
        return sum(self.h)
    """,
}

#: Functions that do not.
NOTING = {
    "set, or it raises": """
        try:
            self.h = x()
        except KeyError as error:
            raise ValueError from error
        self.h = self.h * 2
    """,
    "set, or it returns": """
        if x:
            self.h = x
        else:
            return
        self.h = self.h * 2
    """,
    "set in each turn that goes on": """
        for each in x:
            if each:
                self.h = each
            else:
                continue
            self.h = self.h * 2
    """,
    "set until it is as wanted": """
        while True:
            try:
                self.h = x()
            except KeyError:
                continue
            if self.h:
                break
        self.h = self.h * 2
    """,
    "set before a break, or it raises": """
        for each in x:
            if each:
                self.h = each
                break
        else:
            raise ValueError
        self.h = self.h * 2
    """,
    "set in each case": """
        match x:
            case 1:
                self.h = 0
            case _:
                self.h = x
        self.h = self.h * 2
    """,
    "read where it returns through a finally": """
        try:
            if x:
                return self.h
        finally:
            x()
        self.h = x
    """,
    "behind a return, where nothing comes": """
        self.h = x
        return x
        if x:
            self.h = self.h * 2
    """,
    "set as an item, and then in it": """
        self.d["h"] = x()
        self.d["h"].h = self.d["h"].h + 1
    """,
    "set, and then an item of it": """
        self.h = x()
        self.h[0] = self.h[0] * 2
        self.h[x > 5] *= 0.5
    """,
    "added to a variable, which it is not": """
        self.h = x()
        y = self.inner(x)
        y += self.h
        y[0] = y[0] * 2
    """,
    "first written by a variable": """
        st = self.st
        st.h = x
        self.st.h = self.st.h + x
        st = x.st
        self.st.last = st.last
    """,
    "first written by a variable that stands for one of two": """
        if x:
            st = self.st
        else:
            st = self.other
        st.h = x
        st.h = st.h + x
    """,
    "written by a variable that stands for nothing by then": """
        st = self.other if x else self.h
        st = x()
        st[0] = st[0] + x
    """,
    "written by a variable that stands for another on another way": """
        st = self.st
        st.h = x()
        if x:
            st = x.st
        else:
            st.h = st.h + x
    """,
}


def updates_of(body: str, folder: Path) -> Updates:
    made: dict[str, Any] = {}
    file = folder / "step.py"
    file.write_text(
        "def step(self, x):" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    exec(compile(file.read_text(), str(file), "exec"), made)
    return updates_by([made["step"].__code__])


@pytest.mark.parametrize("what", [*UPDATING, *NOTING])
def test_a_function_updates_what_it_reads_and_then_writes_on_some_way(
    what: str, tmp_path: Path
) -> None:
    updates = updates_of({**UPDATING, **NOTING}[what], tmp_path)
    assert updates.counts("h") == (what in UPDATING)


def test_a_handler_knows_what_a_variable_of_the_body_stands_for(tmp_path: Path) -> None:
    body = """
        try:
            st = self.st
            x()
        except KeyError:
            st.h = st.h + 1
    """
    assert ("self", "st", "h") in {p.path for p in updates_of(body, tmp_path).places}
