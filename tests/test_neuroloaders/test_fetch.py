"""Finding, downloading and unpacking, through the real code against a local server."""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fakes.images import write_cifar10_archive
from fakes.server import LocalServer

from neuroloaders import folders
from neuroloaders.archives import unpack
from neuroloaders.fetch import fetch
from neuroloaders.registry import citation, dataset_info, datasets_available, read_registry


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No proxy, no folder of this machine, a cache folder of the test's own."""
    for name in ("NEUROLOADERS_DATA", "NEUROLOADERS_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(folders, "_user_cache", lambda: tmp_path / "user_cache")
    monkeypatch.setattr(folders, "_beside_checkout", lambda: None)


@pytest.fixture
def server():
    with LocalServer(
        {"plain.bin": bytes(range(256)) * 40, "data.zip": zipped({"data.txt": b"words " * 500})}
    ).running() as s:
        yield s


@pytest.fixture
def registry(server, tmp_path):
    return write_registry(tmp_path / "registry.toml", server)


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write_registry(path, server):
    plain, packed = server.files["plain.bin"], server.files["data.zip"]
    path.write_text(f'''
[tiny]
title = "A tiny data set"
homepage = "http://127.0.0.1"
licence = "CC0"
citation = "@misc{{tiny}}"
also = [["other.npz"]]
[[tiny.files]]
url = "{server.url("plain.bin")}"
size = {len(plain)}
sha256 = "{hashlib.sha256(plain).hexdigest()}"
checksum_source = "this test"
[[tiny.files]]
url = "{server.url("data.zip")}"
md5 = "{hashlib.md5(packed).hexdigest()}"
checksum_source = "this test"
member = "data.txt"
becomes = "data.txt"

[licensed]
title = "Needs a form"
homepage = "http://127.0.0.1"
licence = "ask"
citation = "@misc{{licensed}}"
also = [["train", "val"]]
how_to_get = "Ask for it."
''')
    return read_registry(path)


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def get(registry, data_dir, **options):
    return fetch("tiny", data_dir=data_dir, registry=registry, progress=False, **options)


def test_fetch_downloads_checks_and_unpacks_once(server, registry, tmp_path):
    folder = get(registry, tmp_path / "data")
    assert folder == tmp_path / "data" / "tiny"
    assert (folder / "plain.bin").read_bytes() == server.files["plain.bin"]
    assert (folder / "data.txt").read_bytes() == b"words " * 500
    assert names_in(folder) == ["data.txt", "data.zip", "plain.bin"]
    assert get(registry, tmp_path / "data") == folder
    assert get(registry, tmp_path / "data", offline=True) == folder
    assert server.requests == {"plain.bin": 1, "data.zip": 1}


def test_progress_is_shown_on_standard_error_only_if_asked(registry, tmp_path, capsys):
    get(registry, tmp_path / "quiet")
    assert "it" not in capsys.readouterr().out
    fetch("tiny", data_dir=tmp_path / "loud", registry=registry, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "100%" in captured.err


def test_fetch_needs_the_archive_no_longer_once_unpacked(server, registry, tmp_path):
    folder = get(registry, tmp_path)
    (folder / "data.zip").unlink()
    assert get(registry, tmp_path) == folder
    assert server.requests["data.zip"] == 1


def test_fetch_continues_where_an_earlier_call_stopped(server, registry, tmp_path):
    (folder := tmp_path / "tiny").mkdir()
    (folder / "plain.bin").write_bytes(server.files["plain.bin"])
    get(registry, tmp_path)
    assert server.requests == {"data.zip": 1}


def test_files_can_be_read_by_the_rest_of_the_lab(registry, tmp_path):
    folder = get(registry, tmp_path)
    for name in ("plain.bin", "data.zip", "data.txt"):
        assert (folder / name).stat().st_mode & 0o777 == folder.stat().st_mode & 0o666


@pytest.mark.parametrize("broken", ["plain.bin", "data.zip"])
def test_truncated_download_leaves_nothing_and_says_so(server, registry, tmp_path, broken):
    server.breaks_off.add(broken)
    with pytest.raises(OSError, match=re.escape(server.url(broken))) as caught:
        get(registry, tmp_path)
    assert "Nothing of it was kept" in str(caught.value)
    assert "by hand" in str(caught.value)
    assert broken not in names_in(tmp_path / "tiny")
    assert not [name for name in names_in(tmp_path / "tiny") if name not in ("plain.bin", "data.zip", "data.txt")]
    server.breaks_off.clear()
    get(registry, tmp_path)


def test_changed_file_on_the_server_is_refused(server, registry, tmp_path):
    server.files["plain.bin"] = b"something else"
    with pytest.raises(OSError, match=r"truncated or not the published file \(its sha256 differs\)"):
        get(registry, tmp_path)
    assert names_in(tmp_path / "tiny") == []


def test_missing_file_on_the_server_is_one_clear_sentence(server, registry, tmp_path):
    del server.files["plain.bin"]
    with pytest.raises(OSError, match=r"Could not download .*plain\.bin: the connection failed \(404"):
        get(registry, tmp_path)


def test_damaged_file_on_disk_is_downloaded_again_but_never_used(server, registry, tmp_path, caplog):
    (folder := tmp_path / "tiny").mkdir()
    (folder / "plain.bin").write_bytes(server.files["plain.bin"][:-1])
    with pytest.raises(FileNotFoundError, match="This is offline"):
        get(registry, tmp_path, offline=True)
    assert "is not the published file" in caplog.text
    get(registry, tmp_path)
    assert (folder / "plain.bin").read_bytes() == server.files["plain.bin"]


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_names_urls_and_the_folder_to_put_them(server, registry, tmp_path, monkeypatch, value):
    monkeypatch.setenv("NEUROLOADERS_OFFLINE", value)
    with pytest.raises(FileNotFoundError) as caught:
        get(registry, tmp_path)
    message = str(caught.value)
    assert all(text in message for text in (server.url("plain.bin"), server.url("data.zip"), str(tmp_path / "tiny")))
    assert not server.requests
    monkeypatch.setenv("NEUROLOADERS_OFFLINE", "0")
    get(registry, tmp_path)


def test_offline_unpacks_what_was_put_there_by_hand(server, registry, tmp_path):
    (folder := tmp_path / "tiny").mkdir()
    for name, content in server.files.items():
        (folder / name).write_bytes(content)
    get(registry, tmp_path, offline=True)
    assert (folder / "data.txt").exists()
    assert not server.requests


def test_search_order_is_argument_environment_checkout_cache(server, registry, tmp_path, monkeypatch):
    argument, environment, checkout = (tmp_path / name for name in ("argument", "environment", "checkout"))
    cache = tmp_path / "user_cache"
    checkout.mkdir()
    monkeypatch.setattr(folders, "_beside_checkout", lambda: checkout)
    monkeypatch.setenv("NEUROLOADERS_DATA", str(environment))
    for place, data_dir in ((cache, None), (checkout, None), (environment, None), (argument, argument)):
        (place / "tiny").mkdir(parents=True)
        (place / "tiny" / "other.npz").touch()  # one of the sets of files in `also`
        assert get(registry, data_dir) == place / "tiny"
    assert not server.requests


def test_downloads_go_to_the_environment_or_the_cache_never_beside_the_checkout(
    server, registry, tmp_path, monkeypatch
):
    checkout = tmp_path / "shared" / "data"
    checkout.mkdir(parents=True)
    monkeypatch.setattr(folders, "_beside_checkout", lambda: checkout)
    assert get(registry, None) == tmp_path / "user_cache" / "tiny"
    monkeypatch.setenv("NEUROLOADERS_DATA", str(checkout))
    assert folders.download_folder() == tmp_path / "user_cache"
    with pytest.raises(ValueError, match="Choose a folder of your own"):
        folders.download_folder(checkout)
    monkeypatch.setenv("NEUROLOADERS_DATA", str(tmp_path / "mine"))
    assert folders.download_folder() == tmp_path / "mine"
    assert names_in(checkout) == []


def test_shared_folder_that_may_not_be_written_to_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROLOADERS_DATA", str(tmp_path / "lab"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert folders.download_folder() == tmp_path / "user_cache"


def test_folder_that_cannot_be_made_is_explained(registry, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"Could not download to .*plain\.bin"):
        get(registry, tmp_path / "file")


def test_data_behind_a_licence_say_how_to_get_them(registry, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\(train and val\).*Ask for it\. Then pass data_dir"):
        fetch("licensed", data_dir=tmp_path, registry=registry)
    for part in ("train", "val"):
        (tmp_path / "licensed" / part).mkdir(parents=True)
    assert fetch("licensed", data_dir=tmp_path, registry=registry) == tmp_path / "licensed"


def test_unknown_name_lists_the_known_ones(registry):
    with pytest.raises(ValueError, match="`name` must be one of 'tiny', 'licensed', got 'huge'"):
        fetch("huge", registry=registry)


# --- the registry of the package ---


def test_registry_has_the_data_sets_of_the_papers():
    images = {"mnist", "fashion-mnist", "cifar10", "cifar100", "imagenet"}
    spikes = {"fsdd", "shd", "ssc", "gsc", "dvs-gesture", "nmnist"}
    assert images | spikes == datasets_available().keys()
    assert "@article{cramer2022heidelberg" in citation("shd")


@pytest.mark.parametrize("name", datasets_available())
def test_registry_entries_are_complete(name):
    entry = dataset_info(name)
    assert all((entry.title, entry.licence, entry.citation.startswith("@"), entry.homepage.startswith("http")))
    assert bool(entry.files) != bool(entry.how_to_get)
    for file in entry.files:
        assert len(file.digest) == {"sha256": 64, "md5": 32}[file.algorithm]
        assert file.checksum_source
        assert (file.size is not None) == (file.algorithm == "sha256")  # the md5 tables give no sizes
        named_by_us = ("free-spoken-digit-dataset", "mendeley")
        assert file.name in file.url or any(host in file.url for host in named_by_us)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('sha265 = "0"', "`key of x.files\\[0\\]` must be one of"),
        ("", "give one checksum, sha256 or md5, got 0"),
        ('md5 = "abc"', "have 32 hexadecimal digits"),
        (f'md5 = "{"0" * 32}"\nsha256 = "{"0" * 64}"', "give one checksum, sha256 or md5, got 2"),
        (f'md5 = "{"0" * 32}"\nname = "../x"', "be a path inside"),
        (f'md5 = "{"0" * 32}"\nmember = "x"', "give `member` and `becomes` together"),
    ],
)
def test_registry_refuses_mistakes(tmp_path, line, text):
    head = '[x]\ntitle = "t"\nhomepage = "h"\nlicence = "l"\ncitation = "c"\n'
    path = tmp_path / "r.toml"
    path.write_text(f'{head}[[x.files]]\nurl = "http://h/f"\nchecksum_source = "s"\n{line}\n')
    with pytest.raises(ValueError, match=text):
        read_registry(path)


# --- archives ---


def write_tar_with(path, *infos):
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in infos:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "target"
            tar.addfile(info)


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside"])
@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_archive_with_paths_that_leave_its_folder_is_refused(tmp_path, name, ending):
    archive = tmp_path / "in" / f"evil.{ending}"
    archive.parent.mkdir()
    if ending == "zip":
        archive.write_bytes(zipped({name: b"x"}))
    else:
        write_tar_with(archive, (name, tarfile.REGTYPE))
    with pytest.raises(ValueError, match="written outside of its folder"):
        unpack(archive, ".", archive.parent / "goal")
    assert names_in(archive.parent) == [archive.name]
    assert names_in(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archive_with_links_or_devices_is_refused(tmp_path, kind):
    write_tar_with(tmp_path / "evil.tar.gz", ("link", kind))
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(tmp_path / "evil.tar.gz", ".", tmp_path / "goal")
    assert names_in(tmp_path) == ["evil.tar.gz"]


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("ending", ["tar.gz", "zip", "gz"])
def test_damaged_archive_leaves_nothing(tmp_path, ending, keep):
    content = os.urandom(50_000)
    archive = tmp_path / f"data.{ending}"
    if ending == "tar.gz":
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo("data")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    else:
        archive.write_bytes(gzip.compress(content) if ending == "gz" else zipped({"data": content}))
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(ValueError, match="cannot be read: "):
        unpack(archive, "data", tmp_path / "goal")
    assert names_in(tmp_path) == [archive.name]


def test_unpacking_takes_one_member_or_everything(tmp_path):
    write_cifar10_archive(tmp_path / "a.tar.gz", n_per_batch=2)
    unpack(tmp_path / "a.tar.gz", "cifar-10-batches-bin", tmp_path / "inner")
    unpack(tmp_path / "a.tar.gz", ".", tmp_path / "whole")
    assert names_in(tmp_path / "whole") == ["cifar-10-batches-bin"]
    assert names_in(tmp_path / "whole" / "cifar-10-batches-bin") == names_in(tmp_path / "inner")
    (tmp_path / "b.bin.gz").write_bytes(gzip.compress(b"123"))
    assert unpack(tmp_path / "b.bin.gz", "b.bin", tmp_path / "b.bin").read_bytes() == b"123"
    with pytest.raises(ValueError, match="there is no 'c' in it"):
        unpack(tmp_path / "a.tar.gz", "c", tmp_path / "c")
    with pytest.raises(ValueError, match="its name ends in none of"):
        unpack(tmp_path / "whole", ".", tmp_path / "c")


def test_unpacking_leaves_a_finished_goal_as_it_is(tmp_path):
    (tmp_path / "goal").write_text("mine")
    (tmp_path / "data.zip").write_bytes(zipped({"goal": b"theirs"}))
    assert unpack(tmp_path / "data.zip", "goal", tmp_path / "goal").read_text() == "mine"


def test_importing_the_package_loads_nothing_heavy():
    heavy = "mne nilearn sklearn h5py matplotlib pooch requests PIL scipy diffusers transformers brian2"
    code = f"import sys, neuroloaders; print([m for m in '{heavy}'.split() if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
