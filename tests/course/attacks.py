"""Attacks on the marks of exercise 04: cells that are run before its tests, each with wrong answers to all four tasks.

Written with the source of the grader at hand. None may earn a point, and the judge must go on to grade the next student.
`SYSTEM` is what the sandbox refuses: the cell prints "refused", or the box is stopped for the reason that is given.
"""

from dataclasses import dataclass

from wrong import function

__all__ = ["ATTACKS", "HEADS", "SYSTEM", "Attack", "wrong_answers"]

HEADS = {
    "lookup": "my_lookup(text, gamma, longest, shortest)", "tree": "my_tree(root, branches, nodes)",
    "grams": "my_grams(texts, depth)", "propose": "my_propose(texts, ready, gamma)",
}  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """Cells that are run. `told`: what then stands in the outputs, or in the reason for the end."""

    name: str
    cells: tuple[str, ...]
    told: str = ""


def within(body: str) -> str:
    """All four functions do this when the tests call them, and return None."""
    return "\n".join(function(head, body) for head in HEADS.values())


def wrong_answers() -> str:
    return within("return None")


def act(name: str, *cells: str, told: str = "") -> Attack:
    return Attack(name, cells, told)


FRAMES = """
import sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if isinstance(value, list):
            try: value.append(type('Case', (), {'passed': True, 'weight': 10.0**9, 'asks': '', 'says': '', 'counts': ''})())
            except Exception: pass
    frame = frame.f_back
return None
"""
TRACEBACK = """
try:
    raise ValueError
except ValueError as error:
    tb = error.__traceback__
    frame = tb.tb_frame
    while frame.f_back:
        frame = frame.f_back
        frame.f_globals.update(passed=True, cases=[], credit=lambda *a: 9.0)
return None
"""
LAUNDRY = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 1
    def __len__(self): return 1
    def __iter__(self): return iter([Equal(), Equal()])
    def __getitem__(self, i): return Equal()
    def __float__(self): return 1.0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __getattr__(self, name): return Equal()
"""
WIRE = """
import gc
from socket import socket
link = next(o for o in gc.get_objects() if type(o).__name__ == 'Wire')
worker = next(o for o in gc.get_objects() if type(o).__name__ == 'Worker')
"""


def answering(value: str) -> str:
    """Functions that return this."""
    return within(f"return {value}")


def patched(code: str) -> Attack:
    return act(f"worker patched: {code[:60]}", WIRE + code)


HIDDEN = "[o for o in __import__('gc').get_objects() if isinstance(o, str) and 'BEGIN HIDDEN' in o or type(o).__name__ in ('Trial', 'Report', 'Suspect')]"
ATTACKS = (
    # the issue's
    act("frames to the list of cases", within(FRAMES)),
    act("frames of a traceback", within(TRACEBACK)),
    act("cell magic that hides its code", "get_ipython().register_magic_function(lambda line, cell: get_ipython().run_cell(cell), 'cell', 'quiet')",
        "%%quiet\nimport sys\nfor m in list(sys.modules.values()):\n    for v in list(vars(m).values()) if hasattr(m, '__dict__') else []:\n"
        "        if type(v).__name__ == 'Report': v.credit = lambda *a: 4.0\n"),
    act("globals", "globals().update(report=9.0, hidden=0, check=type('C', (), {'__getattr__': lambda s, n: lambda *a, **k: 9.0})())"),
    act("input transformer", "get_ipython().input_transformers_post.append(lambda lines: ['4.0\\n'])"),
    act("ast transformer", "import ast\nclass T(ast.NodeTransformer):\n    def visit_Expr(self, node): return ast.parse('4.0').body[0]\nget_ipython().ast_transformers.append(T())"),
    act("display hook", "import sys\nsys.displayhook = lambda value: print(4.0)\nget_ipython().displayhook = lambda value: print(4.0)"),
    act("always equal", LAUNDRY + answering("Equal()")),
    act("always equal, in a list", LAUNDRY + answering("[Equal(), Equal()]")),
    act("profile hook", "import sys, threading\n" + within("sys.setprofile(None); threading.setprofile(None); return None")),
    act("thread that asks for the answer", "import threading\nfrom specdec_course.checks.ngram import look\n" + within(
        "found = []\nthread = threading.Thread(target=lambda: found.append(look(text, gamma, longest, shortest)))\n"
        "thread.start(); thread.join()\nreturn found[0] if found else None")),
    # frames, memory, the interpreter
    act("garbage collector", f"import gc\nfor o in {HIDDEN}:\n    try: o.__init__('x', ())\n    except Exception: pass"),
    act("garbage collector while it tests", within(f"for o in {HIDDEN}: print(o)\nreturn None")),
    act("ctypes writes to True", "import ctypes\nctypes.memset(id(False) + 24, 1, 8)"),
    act("ctypes reads null", within("import ctypes; ctypes.string_at(0)")),
    act("builtins patched", "import builtins\nbuiltins.sum = lambda *a: 9.0\nbuiltins.len = lambda x: 1\nbuiltins.isinstance = lambda a, b: True\nbuiltins.all = lambda x: True"),
    act("float patched", "import builtins\nclass F(float):\n    def __new__(cls, *a): return float.__new__(cls, 4.0)\nbuiltins.float = F"),
    act("import patched", "import builtins\nold = builtins.__import__\nbuiltins.__import__ = lambda name, *a: old('math') if 'specdec' in name else old(name, *a)"),
    act("sys.modules replaced", "import sys, types\nfake = types.ModuleType('fake')\nfake.lookup = fake.tree = fake.grams = fake.propose = lambda *a, **k: 4.0\n"
        "for name in list(sys.modules):\n    if 'specdec' in name: sys.modules[name] = fake"),
    act("import hook", "import sys\nclass Hook:\n    def find_spec(self, *a): return None\nsys.meta_path.insert(0, Hook()); sys.path_hooks.clear()"),
    act("package in the working folder", "import os\nos.makedirs('specdec_course/checks', exist_ok=True)\nopen('specdec_course/checks/report.py', 'w').write('UNWRITTEN = 1')"),
    act("trace hook", "import sys\nsys.settrace(lambda *a: None)\n" + within("sys._getframe().f_trace = lambda *a: None; return None")),
    act("thread that goes on patching", "import threading, time\ndef go():\n    while True:\n        globals()['report'] = 4.0\n        time.sleep(0.01)\nthreading.Thread(target=go, daemon=True).start()"),
    act("exit function", "import atexit\natexit.register(lambda: print(4.0))"),
    act("the tests in In", within("return [line for line in In if 'HIDDEN' in line] + list(_ih)")),
    act("name of the tests", "lookup = tree = grams = propose = 4.0\nreport = hidden = 4.0\n__name__ = 'specdec_course.checks.report'"),
    act("display shadowed", "display = lambda report: report.__init__(title='', cases=())"),
    act("exception with a good text", within("raise AssertionError('all 6 cases hold')")),
    act("exception with a bad __str__", "class Bad(Exception):\n    def __str__(self): raise SystemExit(0)\n" + within("raise Bad")),
    act("exit", within("raise SystemExit(0)")),
    act("interrupt", within("raise KeyboardInterrupt")),
    act("generator exit", within("raise GeneratorExit")),
    act("deep recursion", within("f = lambda n: f(n + 1)\nreturn f(0)")),
    # what is returned
    act("list that is always equal", "class L(list):\n    def __eq__(self, other): return True\n    __ne__ = lambda s, o: False\n" + answering("L(['a'])")),
    act("list with another iterator", "class L(list):\n    def __iter__(self): return iter(['c', 'd', 'x'])\n    def __len__(self): return 3\n" + answering("L(['z'])")),
    act("string that is always equal", "class S(str):\n    __eq__ = lambda s, o: True\n    __hash__ = str.__hash__\n    __ne__ = lambda s, o: False\n" + answering("[S('a'), S('b')]")),
    act("number that is always equal", "class N(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n" + answering("{('a',): N(3), ('b',): N(3)}")),
    act("dict that has everything", "class D(dict):\n    def get(self, *a): return 1\n    def __getitem__(self, k): return 1\n    def __contains__(self, k): return True\n" + answering("D()")),
    act("tuple of none", "class T(tuple):\n    def __eq__(self, other): return True\n    __hash__ = tuple.__hash__\n" + answering("{T(('a',)): 1}")),
    act("array interface", "import numpy as np\nclass A:\n    def __array__(self, *a, **k): return np.zeros(3)\n    __array_interface__ = {'shape': (3,), 'typestr': '<f8', 'data': (0, False)}\n" + answering("A()")),
    act("torch function", "class P(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, *a, **k): return True\n" + answering("torch.ones(3).as_subclass(P)")),
    act("tree that lies", "class Tree(DraftTree):\n    def path(self, node): return (node,)\n    __len__ = lambda self: 4\n"
        + answering("Tree(torch.tensor([3]), torch.tensor([-1]))")),
    act("tree changed after it was made", within("t = DraftTree(torch.tensor([3]), torch.tensor([-1]))\n"
        "object.__setattr__(t, 'token_list', (3, 5, 6, 7)); object.__setattr__(t, 'parent_list', (-1, 0, 1, 2))\nreturn t")),
    act("class called Report", "class Report:\n    passed = ok = 9\n    __add__ = __radd__ = lambda s, o: s\n    credit = lambda s, p: p\nReport.__module__ = 'specdec_course.checks.report'\n" + answering("Report()")),
    act("endless iterator", "import itertools\n" + answering("itertools.count()")),
    act("nested too deeply", within("x = []\nfor _ in range(5000): x = [x]\nreturn x")),
    act("contains itself", within("x = []\nx.append(x)\nreturn x")),
    act("too much data", answering("['y' * 100] * 1_000_000")),
    act("long words", answering("['y' * 5_000_000]")),
    act("number without end", answering("[10 ** 50_000]")),
    act("surrogates", answering("['\\ud800', '\\x1b[31m']")),
    act("writes to what it is given", within("args = list(locals().values())\nfor a in args:\n    if isinstance(a, list): a[:] = ['zzz'] * 9\nreturn None")),
    act("metaclass", "class M(type):\n    __instancecheck__ = lambda c, o: True\n    __eq__ = lambda c, o: True\n    __hash__ = lambda c: 1\nclass my_lookup(metaclass=M):\n    def __new__(cls, *a): return True"),
    act("function is a class", *[f"class my_{name}:\n    def __init__(self, *a): self.ok = True\n    def __eq__(self, o): return True\n" for name in HEADS]),
    act("function is the check", "my_lookup, my_tree, my_grams, my_propose = check.look, check, check, check"),
    act("torch patched", "for name in ('equal', 'allclose', 'tensor', 'frombuffer'): setattr(torch, name, lambda *a, **k: True)\ntorch.Tensor.tolist = lambda self: [3, 5, 6, 7]"),
    # the process, its kernel, its outputs
    act("forged outputs", "from IPython.display import publish_display_data as p\nfor i in range(3): p({'text/plain': '4.0'}, {})\n4.0"),
    act("forged outputs, many kinds", "worker = [o for o in __import__('gc').get_objects() if type(o).__name__ == 'Said']\n"
        "for s in worker: s.outputs = [{'output_type': 'execute_result', 'data': {'text/plain': '4.0', 'application/x': {}}}, 3, {'output_type': 'error'}]"),
    act("environment", "import os\nos.environ.update(PYTHONPATH='/tmp', NBGRADER_EXECUTION='x', TRITON_INTERPRET='0', LD_PRELOAD='/x')"),
    act("alarm switched off", "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_REAL, 0)\n" + within("while True: pass"), told="could not be interrupted"),
    act("holds on to its time", within("import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass"), told="could not be interrupted"),
    act("fork that answers, too", within("import os\nos.fork()\nreturn None")),
    act("leaves", within("import os\nos._exit(0)"), told="its process died"),
    act("kills itself", within("import os\nos.kill(os.getpid(), 9)"), told="its process died"),
    act("stops itself", within("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"), told="could not be interrupted"),
    act("closes everything", within("import os\nos.closerange(0, 256)\nreturn None")),
    act("another program", within("import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(4.0)'])"), told="its process died"),
    # the worker's own machinery
    act("asks for ever", WIRE, within("while True: link.send(['ask', 'get', 1, 'x'])"), told="could not be interrupted|it sent|process died"),
    act("answers before it is asked", WIRE + "for i in range(50): link.send(['done', ['list', ['c', 'd', 'x', 'y']], [], 0])"),
    patched("type(worker)._called = lambda self, *a: ['done', ['opaque', 'Credit', '4.0', 4.0, [4.0]], [], 0]"),
    patched("type(worker).on_names = lambda self, names: ['done', {n: ['value', 4.0] for n in names}]"),
    patched("type(worker).on_names = lambda self, names: ['done', {'check': ['function'], 'display': ['function'], 'report': ['value', 4.0], **{n: ['object', 1] for n in names}}]"),
    patched("type(worker).on_names = lambda self, names: ['done', {n: ['kind', 1] for n in names}]"),
    patched("type(worker).on_names = lambda self, names: ['done', 7]"),
    # written later, with the judge's own source at hand
    act("the answer for the last question", "last = []\n" + within("last.append(None)\nreturn last[-2] if len(last) > 1 else None")),
    act("asks for functions of other exercises", WIRE, within(
        "for home, name in (('specdec_ref.sampling', 'residual'), ('specdec_ref.exposition', 'parse'), ('specdec_course.capstone.checks', 'greedy_round')):\n"
        "    try: return worker.ask('use', home, name, ['list', []], ['dict', []])\n    except Exception: pass\nreturn None")),
    act("asks for the tests themselves", WIRE, within(
        "for name in ('lookup', 'examine', 'found', 'LOOKUPS', 'wrong', '__builtins__'):\n"
        "    try: return worker.ask('use', 'specdec_course.checks.ngram', name, ['list', []], ['dict', []])\n    except Exception: pass\nreturn None")),
    act("reaches for the judge's objects by number", WIRE, within(
        "for number in range(-2, 40):\n    for name in ('__call__', '__globals__', '__class__', 'accept'):\n"
        "        try: return worker.ask('get', number, name)\n        except Exception: pass\nreturn None")),
    act("a handle that it was never given", "from specdec_course.grader.handles import Handle\n" + answering("Handle(None, 1)")),
    act("asks within an answer, without end", WIRE, within("return look(text, gamma, longest, shortest) if 'text' in locals() else worker.ask('use', 'specdec_course.checks.ngram', 'look', ['list', [['callable', 1]]], ['dict', []])")),
    act("large work for the judge", "from specdec_course.checks.ngram import look\n" + within("return look([str(i) for i in range(200_000)], 10**6, 10**6, 1)")),
    act("an answer of one hash", within("return {(i * (2**61 - 1),): 1 for i in range(1, 20_000)}")),
    act("a range for a list", answering("range(10**15)")),
    act("numbers that are none", answering("[float('nan'), float('inf')]")),
    act("an error that looks like a verdict", within("raise StopIteration('all cases hold')")),
    act("an error of ours by name", "class Trouble(Exception): pass\nTrouble.__module__ = 'specdec_course.checks.examine'\n" + within("raise Trouble('holds')")),
    act("a warning for an error", within("import warnings\nwarnings.warn('x', UserWarning)\nraise Warning('holds')")),
    act("other names for its type", "class C(list): pass\nC.__name__ = C.__qualname__ = 'list'\nC.__module__ = 'builtins'\n" + answering("C(['zzz'])")),
    act("writes to every open file", within("import os\nfor fd in range(3, 256):\n    try: os.write(fd, b'\\x00\\x00\\x00\\x08[\"done\"]')\n    except OSError: pass\nreturn None")),
    act("a second worker on the same socket", "import os, sys, socket, subprocess\n" + within(
        "fds = [int(n) for n in os.listdir('/proc/self/fd') if n.isdigit()]\nfor fd in fds:\n    try: os.set_inheritable(fd, True)\n    except OSError: pass\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'], close_fds=False)\nreturn None")),
    act("waits for the answer to be worked out", within("import time\ntime.sleep(0.2)\nreturn None")),
    act("text of a report in its type's name", "X = type('✓ holds all 6 cases hold 4.0', (), {})\n" + answering("X()")),
    act("markup in what it returns", answering("['</td></tr></table><b>4.0 of 4 points</b><script>1</script>']")),
    act("a class for a function", "class my_lookup:\n    def __new__(cls, *a): return ['c', 'd']\nmy_tree = my_grams = my_propose = my_lookup"),
    act("a coroutine and a generator", "async def my_lookup(*a): return ['c', 'd']\ndef my_grams(*a):\n    yield {}\nasync def my_tree(*a): return 1\ndef my_propose(*a):\n    yield []"),
)  # fmt: skip

REFUSES = "\nexcept (OSError, MemoryError) as error:\n    print('refused', error)\nelse:\n    print('DONE')"


def refused(name: str, code: str, told: str = "refused") -> Attack:
    return act(
        name,
        "import os, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(name, *args):\n    if getattr(libc, name)(*args) < 0: raise OSError(ctypes.get_errno(), name)\n"
        "try:\n" + "\n".join(f"    {line}" for line in code.splitlines()) + REFUSES,
        told=told,
    )


SYSTEM = (
    refused("user namespace", "call('unshare', 0x10000000)"),
    refused("mount namespace", "call('unshare', 0x20000)"),
    refused("clone into namespaces", "call('syscall', 56, 0x10000000 | 17, 0, 0, 0, 0)"),
    refused("tmpfs", "call('mount', b'none', b'/tmp', b'tmpfs', 0, None)"),
    refused("memory file", "os.memfd_create('x')"),
    refused("shared memory segment", "call('shmget', 0, 10**8, 0o1600)"),
    refused("kernel keyring", "call('syscall', 248, b'user', b'x', b'y', 1, -3)"),
    refused("tracing its parent", "call('ptrace', 16, os.getppid(), 0, 0)"),
    refused("files without end", "for i in range(30_000): open(f'f{i}', 'w').close()"),
    refused("unlinked files", "held = []\nfor i in range(8):\n    file = open('x', 'wb'); os.unlink('x'); held.append(file)\n    file.write(bytes(9 * 10**7)); file.flush()"),
    refused("nested folders, then a file", "for i in range(30_000):\n    os.mkdir('d'); os.chdir('d')"),
    refused("many open files", "held = [open('/dev/null') for _ in range(1000)]"),
    refused("network", "import socket\nsocket.create_connection(('10.0.0.1', 80), 5)"),
    refused("what is not its own", "for p in ('/etc/shadow', '/root', '/home', '/var', '/proc/1/environ'):\n    if os.path.exists(p): os.listdir(p) if os.path.isdir(p) else open(p).read()\nraise OSError('nothing there')"),
    refused("signals its parent", "os.kill(1, 9)\nos.kill(os.getppid(), 9)"),
    refused("solutions in the environment", "import sys\nnear = [os.path.join(at, n) for top in {sys.prefix, *sys.path} if os.path.isdir(top) for n in os.listdir(top) if n.startswith('specdec') for at in [top]]\n"
        "found = [os.path.join(at, f) for top in near for at, _, files in os.walk(top) for f in files if f.endswith('.ipynb') or f in ('suspects.py', 'verifiers.py', 'judge.py')]\n"
        "if not found: raise OSError('none')"),
    refused("other hand-ins", "import glob\nif not [p for p in glob.glob('/tmp/**', recursive=True) + glob.glob('/tmp/../*/in/**', recursive=True) if 'gradebook' in p or p.endswith('.ipynb')]: raise OSError('none')"),
    refused("processes of others", "import glob\nif [p for p in glob.glob('/proc/[0-9]*/cmdline') if b'pytest' in open(p, 'rb').read()] == []: raise OSError('none')"),
    refused("memory of the judge", "open('/proc/1/mem', 'r+b').write(b'4')"),
    refused("its own limits", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))"),
    refused("the packages it runs on", "import torch\nopen(torch.__file__, 'a').write('#')"),
    refused("a device", "os.mknod('d', 0o60600, os.makedev(8, 0))"),
    refused("the system's settings", "open('/proc/sys/kernel/hostname', 'w').write('x')"),
    refused("the clock", "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)"),
    refused("a socket of the kernel's", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16).bind((0, 0))\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
)  # fmt: skip
