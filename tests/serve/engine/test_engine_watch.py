"""No orphans."""

import subprocess
import sys

from curbcut.serve.engine.watch import watched


def test_a_group_ends_when_nobody_holds_its_watch_any_more():
    group = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE,
                             start_new_session=True)
    watch = watched(group.pid, 20.0)
    assert group.poll() is None
    watch.stdin.close()  # what the death of this process would do
    assert group.wait(30) != 0
    watch.wait(30)
