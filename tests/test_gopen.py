"""gopen: which handler a url goes to, rewriting, the security switch, local files; the contract of all openers."""

from __future__ import annotations

import io
import os
import pickle
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from opener_contract import OpenerContract
from servers import Page, serve
from webdataset import security
from webdataset.errors import NotFoundError, OpenError, SecurityError, UnknownSchemeError, public_url
from webdataset.gopen import (
    Pipe,
    gopen,
    gopen_curl,
    gopen_file,
    gopen_schemes,
    info,
    reader,
    rewrite_url,
    set_options,
)
from webdataset.storage.local import local_path
from webdataset.storage.urls import file_url_to_path, scheme_of


class TestPath(OpenerContract):
    """Plain paths keep the contract."""

    @pytest.fixture
    def url_of(self, tmp_path):
        def make(data: bytes) -> str:
            (tmp_path / "data").write_bytes(data)
            return str(tmp_path / "data")

        return make

    @pytest.fixture
    def missing(self, tmp_path):
        return str(tmp_path / "missing")

    @pytest.fixture
    def target(self, tmp_path):
        return str(tmp_path / "out"), (tmp_path / "out").read_bytes


class TestFileUrl(TestPath):
    """file: urls keep the contract."""

    @pytest.fixture
    def url_of(self, tmp_path):
        def make(data: bytes) -> str:
            path = tmp_path / "da ta%"
            path.write_bytes(data)
            return path.as_uri()

        return make

    @pytest.fixture
    def target(self, tmp_path):
        return (tmp_path / "o u t").as_uri(), (tmp_path / "o u t").read_bytes

    @pytest.fixture
    def missing(self):
        return "/nothing-of-this-name/x"  # errors of files name the path


class TestPipeUrl(OpenerContract):
    """pipe: urls keep the contract."""

    @pytest.fixture
    def url_of(self, tmp_path):
        def make(data: bytes) -> str:
            (tmp_path / "data").write_bytes(data)
            return f"pipe:cat {shlex.quote(str(tmp_path / 'data'))}"

        return make

    @pytest.fixture
    def missing(self, tmp_path):
        return f"pipe:cat {tmp_path}/missing 2>/dev/null"

    @pytest.fixture
    def target(self, tmp_path):
        return f"pipe:cat > {shlex.quote(str(tmp_path / 'out'))}", (tmp_path / "out").read_bytes


class TestHttp(OpenerContract):
    """http: urls keep the contract."""

    chunked = False

    @pytest.fixture
    def pages(self):
        return {}

    @pytest.fixture
    def server(self, pages):
        with serve(pages) as server:
            yield server

    @pytest.fixture
    def url_of(self, server, pages):
        def make(data: bytes) -> str:
            pages["/data.tar"] = Page(data, chunked=self.chunked)
            return server.url("/data.tar")

        return make

    @pytest.fixture
    def missing(self, server):
        return server.url("/missing.tar")

    @pytest.fixture
    def target(self, server):
        return server.url("/up.tar"), lambda: server.uploads["/up.tar"]


class TestChunkedHttp(TestHttp):
    """http: urls whose length is not announced keep the contract."""

    chunked = True


def test_local_files_are_plain_files(tmp_path):
    """The stream of a local file is what `open` gives, which the tar reader unwraps."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"x")
    with gopen(str(path)) as stream:
        assert type(stream) is io.BufferedReader
        assert type(stream.raw) is io.FileIO


ODD_NAMES = ["we#ird.tar", "wh?at.tar", "100%.tar", "a%20b.tar"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "with space.tar", "a;b=1.tar", "é.tar"])
def test_paths_are_taken_as_they_are(tmp_path, name):
    """No character of a plain path means anything; as a file: url it may be escaped."""
    path = tmp_path / name
    path.write_bytes(name.encode())
    for url in (str(path), path, path.as_uri(), f"file:{urllib.parse.quote(str(path))}"):
        with gopen(url) as stream:
            assert stream.read() == name.encode()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_unescaped_file_urls(tmp_path, name):
    """A file: url that was never escaped opens too, as it did before 1.0."""
    (tmp_path / name).write_bytes(b"x")
    with reader(f"file:{tmp_path}/{name}") as stream:
        assert stream.read() == b"x"


def test_file_url_forms(tmp_path, monkeypatch):
    """file: urls may be relative, have one slash or three, or name the host."""
    (tmp_path / "a.tar").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for url in (
        "file:a.tar",
        f"file:{tmp_path}/a.tar",
        f"file://{tmp_path}/a.tar",
        f"FILE://localhost{tmp_path}/a.tar",
    ):
        with gopen(url) as stream:
            assert stream.read() == b"x"


def test_names_that_are_no_text(tmp_path):
    """A path with bytes that are not UTF-8 opens, plain and as a file: url."""
    name = os.fsencode(tmp_path) + b"/\xff.tar"
    Path(os.fsdecode(name)).write_bytes(b"x")
    for url in (os.fsdecode(name), f"file:{tmp_path}/%FF.tar"):
        with gopen(url) as stream:
            assert stream.read() == b"x"


@pytest.mark.parametrize("url", ["C:\\data\\x.tar", "c:/data/x.tar", "C:x.tar", "\\\\host\\share\\x.tar"])
def test_windows_paths_have_no_scheme(url):
    """A drive letter is no scheme, and a share no host."""
    assert scheme_of(url) == ""
    assert local_path(url) == url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/my%20data/x.tar", "C:\\my data\\x.tar"),
        ("file:/C:/x.tar", "C:\\x.tar"),
        ("file:C:/x.tar", "C:\\x.tar"),
        ("file:///C|/x.tar", "C:\\x.tar"),
        ("file://localhost/D:/x.tar", "D:\\x.tar"),
        ("file://server/share/x.tar", "\\\\server\\share\\x.tar"),
        ("file:sub/x%23.tar", "sub\\x#.tar"),
    ],
)
def test_file_urls_on_windows(url, path):
    """file: urls become Windows paths by the rules of ntpath."""
    assert file_url_to_path(url, windows=True) == path


@pytest.mark.parametrize("url", ["http://h/x.tar", "pipe:cat x", "-", "s3://b/k", "hf://datasets/a/b/c"])
def test_other_urls_have_no_local_path(url):
    """Only paths and file: urls are local."""
    assert local_path(url) is None


def test_missing_file_errors(tmp_path, monkeypatch):
    """What is missing, a file or its folder, is said in one line; old code catches FileNotFoundError."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^x\.tar: no such file \(relative to .*\)$") as caught:
        gopen("x.tar")
    assert isinstance(caught.value, NotFoundError)
    assert caught.value.errno == 2
    with pytest.raises(NotFoundError, match=r"^no/x\.tar: the folder 'no' does not exist"):
        gopen("no/x.tar")
    with pytest.raises(NotFoundError, match="the folder 'no' does not exist; create it first"):
        gopen("no/x.tar", "wb")
    with pytest.raises(NotFoundError, match="an empty name is no file"):
        gopen("")
    with pytest.raises(OpenError, match="not the name of a file: embedded null byte"):
        gopen("a\0b")


def test_directory_errors(tmp_path):
    """A directory is not a file, for reading and for writing."""
    for mode in ("rb", "wb"):
        with pytest.raises(OpenError, match="is a directory, not a file") as caught:
            gopen(tmp_path, mode)
        assert caught.value.url == str(tmp_path)


def test_errors_cross_processes(tmp_path):
    """An error keeps its text through pickle."""
    with pytest.raises(OpenError) as caught:
        gopen(tmp_path / "x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_unknown_scheme(tmp_path):
    """An unknown scheme is told from the known ones, with the way to add it; old code catches ValueError."""
    with pytest.raises(ValueError, match="foo://bucket/key: no gopen handler defined for 'foo'") as caught:
        gopen("foo://bucket/key?signature=abc")
    assert isinstance(caught.value, UnknownSchemeError)
    assert isinstance(caught.value, OSError)
    assert "http, https, pipe" in str(caught.value)
    assert "webdataset.gopen_schemes['foo']" in str(caught.value)
    assert "abc" not in str(caught.value)


def test_file_that_looks_like_a_url(tmp_path, monkeypatch):
    """A file is opened by its name even if that begins like an unknown scheme."""
    monkeypatch.chdir(tmp_path)
    Path("run:1.tar").write_bytes(b"x")
    with gopen("run:1.tar") as stream:
        assert stream.read() == b"x"


def test_registered_schemes(monkeypatch):
    """A program's handler is called with (url, mode, bufsize, **kw); schemes are compared in lower case."""
    seen = []

    def handler(url, mode, bufsize, **kw):
        seen.append((url, mode, bufsize, kw))
        return io.BytesIO(b"mine")

    monkeypatch.setitem(gopen_schemes, "mem", handler)
    assert gopen("MEM://x", color="red").read() == b"mine"
    gopen("mem:y", "wb", 17)
    assert seen == [("MEM://x", "rb", 8192, {"color": "red"}), ("mem:y", "wb", 17, {})]


def test_default_handler_can_be_replaced(monkeypatch):
    """`__default__` gets every scheme that has no handler."""
    monkeypatch.setitem(gopen_schemes, "__default__", lambda url, mode, bufsize, **kw: io.BytesIO(url.encode()))
    assert gopen("who:knows").read() == b"who:knows"


def test_wrong_arguments():
    """A wrong mode or a url of a wrong type is named."""
    with pytest.raises(ValueError, match='the mode must be "rb" or "wb", got \'r\''):
        gopen("x.tar", "r")
    with pytest.raises(TypeError, match="a url must be a str or a path, got dict"):
        gopen({"url": "x.tar"})
    with pytest.raises(TypeError, match="got bytes"):
        gopen(b"x.tar")
    with pytest.raises(ValueError, match='the mode must be "rb" or "wb"'):
        gopen_file("x.tar", "ab")


def test_standard_streams():
    """`-` is standard input or output, and closing it leaves the process its own."""
    program = (
        "import sys; from webdataset.gopen import gopen\n"
        "with gopen('-') as source, gopen('-', 'wb') as sink:\n"
        "    first = source.read(3); sink.write(first + source.readline() + source.read1(2) + source.read())\n"
        "    buffer = bytearray(4); assert source.readinto(buffer) == 0 and source.readable() and sink.writable()\n"
        "assert source.closed and not sys.stdin.closed\n"
        "sys.stdout.write('|still open')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=b"a\xff\nb\ncd\nrest", capture_output=True, check=True)
    assert done.stdout == b"a\xff\nb\ncd\nrest|still open"


def test_standard_stream_without_bytes(monkeypatch):
    """A replaced sys.stdin that has no bytes is a clear error."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    with pytest.raises(OpenError, match=r"-: sys.stdin has no byte stream"):
        gopen("-")


def test_rewriting(monkeypatch, tmp_path):
    """The first rule that changes the url wins; rules match at the beginning and may use groups."""
    (tmp_path / "a.tar").write_bytes(b"x")
    monkeypatch.setenv("GOPEN_REWRITE", f"http://other/=no/;gs://(\\w+)/=http://h/\\1/;s3://b/={tmp_path}/;s3://=no/")
    assert rewrite_url("gs://b/a=1.tar") == "http://h/b/a=1.tar"
    assert rewrite_url("xgs://b/a.tar") == "xgs://b/a.tar"
    with gopen("s3://b/a.tar") as stream:
        assert stream.read() == b"x"
    monkeypatch.delenv("GOPEN_REWRITE")
    assert rewrite_url("s3://b/a.tar") == "s3://b/a.tar"


@pytest.mark.parametrize("rules", ["no-equals-sign", "(=x", "a=\\9"])
def test_broken_rewriting_rules(monkeypatch, rules):
    """A rule that is none is named with its variable."""
    monkeypatch.setenv("GOPEN_REWRITE", rules)
    with pytest.raises(ValueError, match="GOPEN_REWRITE"):
        rewrite_url("a.tar")


def test_buffer_size(monkeypatch, tmp_path):
    """GOPEN_BUFFER is the buffer of local files: 0 means none, 1 does not mean lines, text is an error."""
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setenv("GOPEN_BUFFER", "0")
    with gopen(tmp_path / "a") as stream:
        assert type(stream) is io.FileIO
    monkeypatch.setenv("GOPEN_BUFFER", "1")
    with gopen(tmp_path / "a") as stream:
        assert type(stream) is io.BufferedReader
    monkeypatch.setenv("GOPEN_BUFFER", "big")
    with pytest.raises(ValueError, match="GOPEN_BUFFER must be a number of bytes, got 'big'"):
        gopen(tmp_path / "a")


def test_verbose(monkeypatch, tmp_path, capfd):
    """GOPEN_VERBOSE shows opens with `info`, rewrites and exit statuses on stderr, without credentials."""
    monkeypatch.setitem(info, "worker", 3)
    gopen("pipe:true").close()
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("GOPEN_VERBOSE", "1")
    monkeypatch.setenv("GOPEN_REWRITE", "s3://=pipe:echo https://me:secret@h/")
    gopen("s3://b/k?key=secret").read()
    shown = capfd.readouterr().err
    assert "GOPEN s3://b/k {'worker': 3}" in shown
    assert "GOPEN REWRITE s3://b/k -> pipe:echo https://h/b/k" in shown
    assert "PIPE echo https://h/b/k" in shown
    assert "exit 0" in shown
    assert "secret" not in shown
    monkeypatch.setenv("GOPEN_VERBOSE", "yes")
    with pytest.raises(ValueError, match="GOPEN_VERBOSE must be an integer, got 'yes'"):
        gopen("pipe:true")


SECURE_MESSAGES = [
    ("x.tar", "gopen: unsafe_gopen is False, cannot open local files"),
    ("file:x.tar", "gopen: unsafe_gopen is False, cannot open local files"),
    ("pipe:true", "gopen_pipe: unsafe_gopen is False, cannot open pipe URLs"),
]


@pytest.mark.parametrize(("url", "message"), SECURE_MESSAGES)
@pytest.mark.parametrize("how", ["environment", "program"])
def test_security_switch(monkeypatch, tmp_path, url, message, how):
    """With the switch on, local files and commands are refused with the published messages."""
    monkeypatch.chdir(tmp_path)
    Path("x.tar").write_bytes(b"x")
    gopen(url).close()
    if how == "environment":
        monkeypatch.setenv("WDS_SECURE", "1")
    else:
        monkeypatch.setattr(security, "enforce_security", True)
    with pytest.raises(ValueError) as caught:
        gopen(url)
    assert type(caught.value) is SecurityError
    assert str(caught.value) == message


def test_security_switch_and_rewriting(monkeypatch):
    """With the switch on, GOPEN_REWRITE is refused if it is set."""
    monkeypatch.setenv("WDS_SECURE", "1")
    assert rewrite_url("http://h/x") == "http://h/x"
    monkeypatch.setenv("GOPEN_REWRITE", "a=b")
    with pytest.raises(SecurityError) as caught:
        rewrite_url("http://h/x")
    assert str(caught.value) == "rewrite_url: unsafe_gopen is False, cannot rewrite URLs using environment variables"


def test_security_switch_leaves_the_rest(monkeypatch, tmp_path):
    """With the switch on, writing local files and reading http goes on; commands for writing do not."""
    monkeypatch.setenv("WDS_SECURE", "1")
    with gopen(tmp_path / "out", "wb") as stream:
        stream.write(b"x")
    with serve({"/a": b"y"}) as server, gopen(server.url("/a")) as stream:
        assert stream.read() == b"y"
    with pytest.raises(SecurityError, match="cannot open pipe URLs"):
        gopen(f"pipe:cat > {tmp_path}/out", "wb")
    assert (tmp_path / "out").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("program", "environment", "on"),
    [
        (None, None, False),
        (None, "", False),
        (None, "0", False),
        (None, "1", True),
        (False, "1", False),
        (True, "0", True),
    ],
)
def test_security_decision(monkeypatch, program, environment, on):
    """The program's word wins over WDS_SECURE, which is read at each question."""
    monkeypatch.setattr(security, "enforce_security", program)
    monkeypatch.delenv("WDS_SECURE", raising=False)
    if environment is not None:
        monkeypatch.setenv("WDS_SECURE", environment)
    assert security.security_enforced() is on


def test_security_switch_that_is_no_number(monkeypatch):
    """A switch that cannot be understood refuses instead of guessing."""
    monkeypatch.setenv("WDS_SECURE", "true")
    with pytest.raises(SecurityError, match="WDS_SECURE must be 0 or 1, got 'true'"):
        gopen("x.tar")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs curl, gsutil and ais that write down their arguments, give "bytes", and keep what they read."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("curl", "gsutil", "ais"):
        tool = folder / name
        tool.write_text(
            f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\" > {tmp_path}/arguments\n"
            f"case \"$*\" in *put*|*PUT*|'cp '*) cat > {tmp_path}/stored;; *) printf bytes;; esac\n"
        )
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


READ_CURL = "curl --connect-timeout 30 --retry 30 --retry-delay 2 -f -s -L --globoff"
COMMANDS = [
    ("sftp://h/it's [a] $(touch x).tar", READ_CURL, "curl -f -s -X PUT -L --globoff -T -", ""),
    ("ftps://h/a b.tar", READ_CURL, "curl -f -s -X PUT -L --globoff -T -", ""),
    ("scp://h/a.tar", READ_CURL, "curl -f -s -X PUT -L --globoff -T -", ""),
    ("ais://b/a.tar", "ais get", "ais put -", " -"),
]


@pytest.mark.parametrize(("url", "read", "write", "after"), COMMANDS)
def test_command_line_schemes(tools, url, read, write, after):
    """Some schemes go to a command-line tool, as arguments that no shell sees."""
    with gopen(url) as stream:
        assert stream.read() == b"bytes"
    assert (tools / "arguments").read_text().splitlines() == [*read.split(), url, *after.split()]
    with gopen(url, "wb") as stream:
        stream.write(b"to keep")
    assert (tools / "stored").read_bytes() == b"to keep"
    assert (tools / "arguments").read_text().splitlines() == [*write.split(), url]


NATIVE = [
    ("http://h/a b.tar", READ_CURL, "curl -f -s -X PUT -L --globoff -T -"),
    ("gs://b/a.tar", "gsutil cat", "gsutil cp -"),
]


@pytest.mark.parametrize(("url", "read", "write"), NATIVE)
def test_tools_instead_of_the_library(tools, monkeypatch, url, read, write):
    """The option tool, or its environment variable, gives schemes of the library to their command-line tools."""
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", '{"tool": true}')
    assert gopen(url).read() == b"bytes"
    assert (tools / "arguments").read_text().splitlines() == [*read.split(), url]
    monkeypatch.delenv("WDS_STORAGE_OPTIONS")
    with gopen(url, "wb", tool=True) as stream:
        stream.write(b"to keep")
    assert (tools / "stored").read_bytes() == b"to keep"
    assert (tools / "arguments").read_text().splitlines() == [*write.split(), url]


def test_use_ais_for(tools, monkeypatch):
    """USE_AIS_FOR sends schemes to the ais command, known ones too."""
    monkeypatch.setenv("USE_AIS_FOR", "s3:gs")
    for url in ("s3://b/k", "gs://b/k"):
        assert gopen(url).read() == b"bytes"
        assert (tools / "arguments").read_text().split() == ["ais", "get", url, "-"]


def test_curl_for_http(tools, monkeypatch):
    """A program brings the curl command back for http with one line."""
    monkeypatch.setitem(gopen_schemes, "http", gopen_curl)
    assert gopen("http://h/a.tar").read() == b"bytes"
    assert (tools / "arguments").read_text().split() == [*READ_CURL.split(), "http://h/a.tar"]


def test_tool_that_is_not_installed(monkeypatch, tmp_path):
    """A tool that is not there is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"gs://b/k: cannot run 'gsutil': not found on PATH; install it"):
        gopen("gs://b/k", tool=True)


def test_tool_that_fails(tools):
    """The error of a tool names the url, the command and the status."""
    (tools / "bin" / "gsutil").write_text("#!/bin/sh\nexit 4\n")
    with pytest.raises(OpenError, match=r"^gs://b/k: `gsutil cat gs://b/k`: exit status 4: "):
        gopen("gs://b/k", tool=True).read()


def test_read_only_schemes():
    """hf: and htgs: can only be read."""
    for url in ("hf://datasets/o/n/x.tar", "htgs://b/x.tar"):
        with pytest.raises(ValueError, match="can only be read"):
            gopen(url, "wb")


def test_htgs(monkeypatch):
    """htgs: urls are objects of a public bucket, read over http."""
    with serve({"/bucket/a b#1.tar": b"x"}) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.base)
        assert gopen("htgs://bucket/a b#1.tar").read() == b"x"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("hf://datasets/o/n/a b.tar", "/datasets/o/n/resolve/main/a%20b.tar"),
        ("hf://datasets/o/n@v1.0/sub/x.tar", "/datasets/o/n/resolve/v1.0/sub/x.tar"),
        ("hf://datasets/o/n@refs/pr/3/x.tar", "/datasets/o/n/resolve/refs%2Fpr%2F3/x.tar"),
        ("hf://datasets/o/n@refs%2Fpr%2F3/x.tar", "/datasets/o/n/resolve/refs%2Fpr%2F3/x.tar"),
        ("hf://o/model/x.tar", "/o/model/resolve/main/x.tar"),
        ("hf://models/o/model/x.tar", "/o/model/resolve/main/x.tar"),
        ("hf://spaces/o/n/x.tar", "/spaces/o/n/resolve/main/x.tar"),
    ],
)
def test_hf(monkeypatch, tmp_path, url, path):
    """hf: urls go to the hub's endpoint with the user's token, which the store behind it never sees."""
    with (
        serve({"/blob": b"shard"}) as store,
        serve({urllib.parse.unquote(path): Page(redirect=store.url("/blob"))}) as hub,
    ):
        monkeypatch.setenv("HF_ENDPOINT", hub.base + "/")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert gopen(url).read() == b"shard"
        assert hub.requests[0].path == path
        assert hub.requests[0].headers["Authorization"] == "Bearer hf_secret"
        assert "Authorization" not in store.requests[0].headers


@pytest.mark.parametrize("where", ["HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME", "HOME", None])
def test_hf_token_file(monkeypatch, tmp_path, where):
    """Without HF_TOKEN the stored token is used, wherever the hub's own tools keep it; without any, none is sent."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    files = {
        "HF_TOKEN_PATH": "t",
        "HF_HOME": "token",
        "XDG_CACHE_HOME": "huggingface/token",
        "HOME": ".cache/huggingface/token",
    }
    if where is not None:
        file = tmp_path / files.get(where, ".cache/huggingface/token")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("hf_stored\n")
        monkeypatch.setenv(where, str(file if where == "HF_TOKEN_PATH" else tmp_path))
    with serve({"/datasets/o/n/resolve/main/x": b"x"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.base)
        gopen("hf://datasets/o/n/x").close()
        assert hub.requests[0].headers.get("Authorization") == (None if where is None else "Bearer hf_stored")


def test_hf_url_without_a_file():
    """An hf: url that names no file says how it is written."""
    with pytest.raises(OpenError, match=r"^hf://datasets/o: write hf://datasets/OWNER/NAME/PATH"):
        gopen("hf://datasets/o")


def test_set_options():
    """set_options changes a Pipe and keeps 0 among its good statuses; other streams are left alone."""
    with Pipe("exit 7", shell=True, mode="rb") as stream:
        assert set_options(stream, timeout=5.0, ignore_status=[7])
        assert stream.read() == b""
        assert (stream.timeout, stream.ignore_status) == (5.0, [0, 7])
    with Pipe("exit 7", shell=True, mode="rb") as stream:
        assert set_options(stream, ignore_errors=True)
        assert stream.read() == b""
    assert not set_options(io.BytesIO(), timeout=1.0)


def test_secrets_in_urls_are_never_shown():
    """User and password, also with an @ in them, and the query string are left out; paths stay whole."""
    assert public_url("https://user:p@ss@host/a.tar?token=abc#x") == "https://host/a.tar"
    assert public_url("pipe:curl https://user:p@ss@host/a.tar?sig=1 | cat") == "pipe:curl https://host/a.tar | cat"
    assert public_url("file:///data/a#b.tar") == "file:///data/a#b.tar"
