"""Wrong arguments: each is one line that says where, which, what it must be and what it is, when the object is made."""

from __future__ import annotations

import importlib.util
import inspect
import io
import pickle
import re

import numpy as np
import pytest

import webdataset as wds
from webdataset import cache, extradatasets, filters
from webdataset import tariterators as stages
from webdataset._stage import public_name
from webdataset.cache import LRUCleanup
from webdataset.fluid import FluidInterface
from webdataset.gopen import Pipe, gopen_file


def DATASET(**kw):  # noqa: N802 -- short in the table
    return wds.WebDataset(["a.tar"], **kw)


def WRITER(**kw):  # noqa: N802
    return wds.TarWriter(io.BytesIO(), **kw)


def SHARDS(**kw):  # noqa: N802
    return wds.ShardWriter(**{"pattern": "%d.tar", **kw})


def FOLDER(**kw):  # noqa: N802
    return wds.shardlists.DirectoryShardList(**{"path": ".", **kw})


def MIX(**kw):  # noqa: N802
    return wds.RandomMix(**{"datasets": [[1], [2]], **kw})


def RESAMPLED(**kw):  # noqa: N802
    return wds.ResampledShards("a.tar", **kw)


def FIRST(stage, data=()):  # noqa: N802
    return lambda **kw: next(iter(stage(data, **kw)))


# public name, what makes it, arguments, error, its text from the beginning
CASES = [
    ("Pipe", Pipe, {"mode": 1}, ValueError, "the mode of a pipe must be"),
    ("Pipe", Pipe, {"mode": "rb", "ignore_status": 5}, TypeError, "Pipe: ignore_status must be a list of exit"),
    ("LRUCleanup", LRUCleanup, {"cache_dir": 1}, TypeError, "LRUCleanup: cache_dir must be a str or a path or None"),
    ("LRUCleanup", LRUCleanup, {"cache_size": "1"}, TypeError, "LRUCleanup: cache_size must be a number of bytes, got"),
    ("LRUCleanup", LRUCleanup, {"interval": "1"}, TypeError, "LRUCleanup: interval must be a number of seconds or Non"),
    ("LRUCleanup", LRUCleanup, {"keyfn": 1}, TypeError, "LRUCleanup: keyfn must be a function, got 1"),
    ("LRUCleanup", LRUCleanup().set_cache_dir, {"cache_dir": 1}, TypeError, "LRUCleanup.set_cache_dir: cache_dir mus"),
    ("FileCache", cache.FileCache, {"cache_cleanup_interval": "x"}, TypeError, "FileCache: cache_cleanup_interval mus"),
    ("url_to_cache_name", cache.url_to_cache_name, {"url": "a", "ndir": "1"}, TypeError, "url_to_cache_name: ndir mus"),
    ("url_to_cache_name", cache.url_to_cache_name, {"url": 1}, TypeError, "url_to_cache_name: url must be text, got 1"),
    ("download", cache.download, {"url": 1, "dest": "a"}, TypeError, "download: url must be text, got 1"),
    ("download", cache.download, {"url": "a", "dest": 2}, TypeError, "download: dest must be a str or a path, got 2"),
    ("pipe_cleaner", cache.pipe_cleaner, {"spec": 1}, TypeError, "pipe_cleaner: spec must be text, got 1"),
    ("islocal", cache.islocal, {"url": 1}, TypeError, "islocal: url must be text, got 1"),
    ("gopen_file", gopen_file, {"url": b"x"}, TypeError, "a url must be a str or a path, got bytes"),
    ("WebDataset", DATASET, {"handler": wds.ErrorPolicy}, TypeError, ".*the class ErrorPolicy: write ErrorPolic"),
    ("SimpleShardList", wds.SimpleShardList, {"urls": "a", "seed": float("nan")}, TypeError, "seed .* got nan"),
    ("shuffle", wds.shuffle, {"seed": float("inf")}, TypeError, "seed must be an integer, None or .* got inf"),
    ("MultiShardSample", wds.MultiShardSample, {"fname": 3}, TypeError, "MultiShardSample: fname must be a dict"),
    ("tar_file_iterator", FIRST(stages.tar_file_iterator, "a.tar"), {}, TypeError, "tar_file_iterator: fileobj must"),
    ("encode_buffer", wds.tenbin.encode_buffer, {"l": [], "infos": 3}, TypeError, "tenbin: infos must be a list"),
    ("encode_buffer", wds.tenbin.encode_buffer, {"l": [], "infos": "a"}, TypeError, "tenbin: infos must be a list"),
    ("WebDataset", DATASET, {"handler": 3}, TypeError, "WebDataset: handler must be a function of one exception"),
    ("WebDataset", DATASET, {"mode": "fast"}, ValueError, 'WebDataset: mode must be None or "resampled"'),
    ("WebDataset", DATASET, {"mode": "resample"}, TypeError, "WebDataset: mode='resample' needs a folder as urls"),
    ("WebDataset", DATASET, {"resampled": "yes"}, TypeError, "WebDataset: resampled must be True or False, got 'yes'"),
    ("WebDataset", DATASET, {"repeat": []}, TypeError, "WebDataset: repeat must be True or False"),
    ("WebDataset", DATASET, {"shardshuffle": "many"}, TypeError, "WebDataset: shardshuffle must be a whole number"),
    ("WebDataset", DATASET, {"shardshuffle": -1}, ValueError, "WebDataset: shardshuffle .* 0 or more, got -1"),
    ("WebDataset", DATASET, {"shardshuffle": float("nan")}, ValueError, "WebDataset: shardshuffle .* got nan"),
    ("WebDataset", DATASET, {"cache_size": "1G"}, TypeError, "WebDataset: cache_size must be a number of bytes"),
    ("WebDataset", DATASET, {"cache_dir": "c"}, ValueError, "cache directory c does not exist"),
    ("WebDataset", DATASET, {"cache_dir": 1}, TypeError, "WebDataset: cache_dir must be a str or a path"),
    ("WebDataset", DATASET, {"url_to_name": "x"}, TypeError, "WebDataset: url_to_name must be a function or None"),
    ("WebDataset", DATASET, {"detshuffle": "x"}, TypeError, "WebDataset: detshuffle must be True or False"),
    ("WebDataset", DATASET, {"nodesplitter": 1}, TypeError, "WebDataset: nodesplitter must be a function or None"),
    ("WebDataset", DATASET, {"workersplitter": True}, TypeError, "WebDataset: workersplitter must be a function"),
    ("WebDataset", DATASET, {"select_files": "*.jpg"}, TypeError, "WebDataset: select_files must be a function"),
    ("WebDataset", DATASET, {"rename_files": {}}, TypeError, "WebDataset: rename_files must be a function or None"),
    ("WebDataset", DATASET, {"empty_check": "no"}, TypeError, "WebDataset: empty_check must be True or False"),
    ("WebDataset", DATASET, {"verbose": "x"}, TypeError, "WebDataset: verbose must be True or False"),
    ("WebDataset", DATASET, {"seed": "monday"}, TypeError, "seed must be an integer, None or \"random\", got 'monday'"),
    ("WebDataset", DATASET, {"ignore_zeros": "x"}, TypeError, "WebDataset: ignore_zeros must be True or False"),
    ("WebDataset", DATASET, {"torn": "eror"}, ValueError, 'WebDataset: torn .*"error", got \'eror\' .did you mean'),
    ("WebDataset", DATASET, {"require": 3}, TypeError, "require_fields: fields must be names"),
    ("WebDataset", DATASET, {"require": (3,)}, TypeError, "a field must be a name"),
    ("WebDataset", DATASET, {"on_missing": "x"}, ValueError, 'WebDataset: on_missing must be "error" or "skip"'),
    ("WebDataset", DATASET, {"on_missing": "skip"}, ValueError, "WebDataset: on_missing='skip' needs require="),
    ("WebDataset", DATASET, {"keys": "last"}, ValueError, r"WebDataset: keys .* \(did you mean 'last-dot'\?\)"),
    ("WebDataset", DATASET, {"storage_options": 5}, TypeError, "storage_options must be a StorageOptions or a dict"),
    ("WebDataset", DATASET, {"storage_options": {"retries": 5}}, ValueError, "no storage option 'retries'; there are "),
    ("WebDataset", DATASET, {"lcase": "x"}, TypeError, "WebDataset: lcase must be True or False"),
    ("WebDataset", DATASET, {"shardshufle": 1}, TypeError, r".*argument 'shardshufle' \(did you mean 'shardshuffle'"),
    ("WebDataset", DATASET, {"zzz": 1}, TypeError, "WebDataset: unknown argument 'zzz'; known are urls, handler, mode"),
    ("WebDataset", DATASET, {"urls": 1}, TypeError, ".*got multiple values for"),
    ("WebDataset", wds.WebDataset, {"urls": 3}, TypeError, "cannot handle <class 'int'>: shards are a pattern"),
    ("WebDataset", wds.WebDataset, {"urls": b"a.tar"}, TypeError, "cannot handle <class 'bytes'>"),
    ("WebDataset", wds.WebDataset, {"urls": ["a", 3]}, TypeError, "a shard must be a str or a path, got int at posi"),
    ("WebDataset", wds.WebDataset, {"urls": []}, ValueError, "no shards"),
    ("WebDataset", wds.WebDataset, {"urls": "{a,b.tar"}, ValueError, ".*brace"),
    ("SimpleShardList", wds.SimpleShardList, {"urls": 3}, TypeError, "cannot handle"),
    ("SimpleShardList", wds.SimpleShardList, {"urls": "a", "seed": "x"}, TypeError, "seed must be an integer"),
    ("ResampledShards", wds.ResampledShards, {"urls": "a", "seed": "x"}, TypeError, "seed must be an integer"),
    ("ResampledShards", wds.ResampledShards, {"urls": []}, ValueError, "no shards found in ResampledShards"),
    ("batched", wds.batched, {"batchsize": 0}, ValueError, "batched: batchsize must be a whole number of samples, 1"),
    ("batched", wds.batched, {"batchsize": "8"}, TypeError, "batched: batchsize must be a whole number of samples"),
    ("batched", wds.batched, {"batchsize": 8.0}, TypeError, "batched: batchsize .* got 8.0"),
    ("batched", wds.batched, {"collation_fn": "x"}, TypeError, "batched: collation_fn must be a function or None"),
    ("batched", wds.batched, {"batch_size": 8}, TypeError, r"batched: unknown argument 'batch_size' \(did you mean"),
    ("listed", wds.listed, {"batchsize": -1}, ValueError, "batched: batchsize"),
    ("shuffle", wds.shuffle, {"bufsize": "x"}, TypeError, "shuffle: bufsize must be a number of samples, got 'x'"),
    ("shuffle", wds.shuffle, {"initial": None}, TypeError, "shuffle: initial must be a number of samples"),
    ("shuffle", wds.shuffle, {"seed": "x"}, TypeError, "seed must be an integer, None or"),
    ("shuffle", wds.shuffle, {"max_bytes": "1G"}, TypeError, "shuffle: max_bytes must be a number of bytes or None"),
    ("shuffle", wds.shuffle, {"max_bytes": 0}, ValueError, "shuffle: max_bytes must be more than 0"),
    ("shuffle", wds.shuffle, {"bufsiz": 3}, TypeError, r"shuffle: unknown argument 'bufsiz' \(did you mean 'bufsize'"),
    ("detshuffle", wds.detshuffle, {"bufsize": "x"}, TypeError, "shuffle: bufsize must be a number"),
    ("detshuffle", wds.detshuffle, {"seed": "x"}, TypeError, "seed must be an integer"),
    ("detshuffle", wds.detshuffle, {"max_bytes": -1}, ValueError, "shuffle: max_bytes must be more than 0"),
    ("map", wds.map, {"f": 3}, TypeError, "map: f must be a function, got 3"),
    ("map", wds.map, {}, TypeError, "map: missing a required argument: 'f'; it takes f, handler"),
    ("map", wds.map, {"f": len, "handler": None}, TypeError, "map: handler must be a function of one exception"),
    ("map", wds.map, {"f": len, "handlr": 1}, TypeError, r"map: unknown argument 'handlr' \(did you mean 'handler"),
    ("select", wds.select, {"predicate": "x"}, TypeError, "select: predicate must be a function, got 'x'"),
    ("select", wds.select, {"predicate": len, "handler": 1}, TypeError, "select: handler must be a function of one"),
    ("map_dict", wds.map_dict, {"jpg": 3}, TypeError, "map_dict: jpg must be a function, got 3"),
    ("map_dict", wds.map_dict, {}, ValueError, "map_dict needs at least one field=function"),
    ("map_tuple", lambda f: wds.map_tuple(len, f), {"f": 3}, TypeError, "map_tuple: function 1 must be a function or"),
    ("associate", wds.associate, {"associator": 3}, TypeError, "associate: associator must be a function of the key"),
    ("to_tuple", lambda f: wds.to_tuple(f), {"f": 3}, TypeError, "a field must be a name"),
    ("to_tuple", wds.to_tuple, {"handler": 3}, TypeError, "to_tuple: handler must be"),
    ("rename", wds.rename, {"image": 3}, TypeError, "a field must be a name"),
    ("rename_keys", lambda f: wds.rename_keys(f), {"f": 3}, TypeError, "rename_keys: a rule must be a new name and a"),
    ("extract_keys", lambda f: wds.extract_keys(f), {"f": 3}, TypeError, "a field must be a name"),
    ("extract_keys", wds.extract_keys, {"ignor_missing": 1}, TypeError, r"extract_keys: unknown .* 'ignore_missing'"),
    ("xdecode", lambda f: wds.xdecode(f), {"f": 3}, TypeError, "xdecode: a rule must be a pattern and a function"),
    ("xdecode", wds.xdecode, {"npy": 3}, TypeError, "xdecode: the function for 'npy' must be a function"),
    ("decode", lambda f: wds.decode(f), {"f": "rgbb"}, ValueError, "(?i).*unknown imagespec.*'rgbb'"),
    ("decode", lambda f: wds.decode(f), {"f": 3}, TypeError, "Decoder: a decoding handler must be a function"),
    ("decode", wds.decode, {"only": 3}, TypeError, ".*only must be"),
    ("decode", wds.decode, {"onyl": "x"}, TypeError, ".*'onyl'"),
    ("decode", wds.decode, {"handler": 3}, TypeError, "decode: handler must be"),
    ("rsample", wds.rsample, {"p": 2}, ValueError, "rsample: p must be a probability from 0 to 1, got 2"),
    ("rsample", wds.rsample, {"p": "x"}, ValueError, "rsample: p must be a probability"),
    ("slice", lambda n: wds.slice(n), {"n": -1}, ValueError, "slice: stop must be a whole number of items, 0 or more"),
    ("slice", lambda n: wds.slice(n), {"n": "x"}, TypeError, "slice: stop must be a whole number of items"),
    ("slice", lambda n: wds.slice(0, n, 0), {"n": 3}, ValueError, "slice: step must be a whole number of items, 1"),
    ("slice", wds.slice, {}, TypeError, "slice: give stop, or start and stop"),
    ("unbatched", lambda n: wds.unbatched(n), {"n": 3}, TypeError, "unbatched: too many positional arguments; it"),
    ("unlisted", wds.unlisted, {"n": 3}, TypeError, "unlisted: unknown argument 'n'"),
    ("resampled", wds.resampled, {"sed": 3}, TypeError, r"resampled: unknown argument 'sed' \(did you mean 'seed'\?\)"),
    ("require_fields", wds.require_fields, {"fields": ()}, TypeError, "require_fields: fields must be names"),
    ("info", wds.info, {"nn": 1}, TypeError, "info: unknown argument 'nn'"),
    ("log_keys", filters.log_keys, {"file": 1}, TypeError, r"log_keys: unknown argument 'file' \(did you mean"),
    ("tarfile_to_samples", wds.tarfile_to_samples, {"handle": 1}, TypeError, "tarfile_samples: unknown arg"),
    ("ErrorPolicy", wds.ErrorPolicy, {"max_fraction": 2}, ValueError, "ErrorPolicy: max_fraction must be a share"),
    ("Decoder", wds.Decoder, {"handlers": "rgb"}, TypeError, "Decoder: handlers must be a list of functions, got str"),
    ("TarWriter", wds.TarWriter, {"fileobj": 3}, TypeError, "TarWriter: fileobj must be a path, a url or have"),
    ("TarWriter", WRITER, {"compress": "zip"}, ValueError, "compress='zip' is not known"),
    ("TarWriter", WRITER, {"compress": []}, TypeError, "TarWriter: compress must be a name or None, got"),
    ("TarWriter", WRITER, {"encoder": 3}, ValueError, "encoder must be True, False, a dict of encoders by extension"),
    ("TarWriter", WRITER, {"compres": 3}, TypeError, r"TarWriter: unknown argument 'compres' \(did you mean 'compress"),
    ("TarWriter", WRITER, {"user": 5}, TypeError, "TarWriter: user must be text, got 5"),
    ("TarWriter", WRITER, {"group": None}, TypeError, "TarWriter: group must be text, got None"),
    ("TarWriter", WRITER, {"mode": "x"}, TypeError, "TarWriter: mode must be a whole number, got 'x'"),
    ("TarWriter", WRITER, {"mode": -1}, ValueError, "mode must be permission bits"),
    ("TarWriter", WRITER, {"keep_meta": "x"}, TypeError, "TarWriter: keep_meta must be True or False"),
    ("TarWriter", WRITER, {"mtime": "x"}, TypeError, "TarWriter: mtime must be a number of seconds or None, got 'x'"),
    ("TarWriter", WRITER, {"format": {}}, TypeError, "TarWriter: format must be a name or None"),
    ("TarWriter", WRITER, {"format": "v7"}, ValueError, "format must be one of"),
    ("TarWriter", WRITER, {"align": 3}, ValueError, "align must be a power of two from 512 to 524288, got 3"),
    ("ShardWriter", wds.ShardWriter, {"pattern": "a.tar"}, ValueError, "the pattern 'a.tar' must have one place"),
    ("ShardWriter", SHARDS, {"pattern": 5}, TypeError, "ShardWriter: pattern must be a str or a path, got 5"),
    ("ShardWriter", SHARDS, {"maxcount": 0}, ValueError, "ShardWriter: maxcount must be more than 0, got "),
    ("ShardWriter", SHARDS, {"maxcount": None}, TypeError, "ShardWriter: maxcount must be a number of samples"),
    ("ShardWriter", SHARDS, {"maxsize": "3G"}, TypeError, "ShardWriter: maxsize must be a number of bytes"),
    ("ShardWriter", SHARDS, {"post": 5}, TypeError, "ShardWriter: post must be a function or None, got 5"),
    ("ShardWriter", SHARDS, {"start_shard": "a"}, TypeError, "ShardWriter: start_shard must be a number, got 'a'"),
    ("ShardWriter", SHARDS, {"verbose": "x"}, TypeError, "ShardWriter: verbose must be True or False"),
    ("ShardWriter", SHARDS, {"opener": 5}, TypeError, "ShardWriter: opener must be a function or None, got 5"),
    ("ShardWriter", SHARDS, {"overwrite": "x"}, TypeError, "ShardWriter: overwrite must be True or False"),
    ("ShardWriter", SHARDS, {"maxcont": 1}, TypeError, r"ShardWriter: unknown .* 'maxcont' \(did you mean 'maxcount'"),
    ("ShardWriter", SHARDS, {"encodr": 1}, TypeError, r"ShardWriter: unknown .* 'encodr' \(did you mean 'encoder'"),
    ("ShardWriter", SHARDS, {"mtime": "x"}, TypeError, "TarWriter: mtime must be a number"),
    ("add_handlers", wds.writer.add_handlers, {"d": {}, "keys": "a", "value": 5}, TypeError, "add_handlers: value mus"),
    ("add_handlers", wds.writer.add_handlers, {"d": {}, "keys": 5, "value": len}, TypeError, "add_handlers: keys must"),
    ("imageencoder", wds.writer.imageencoder, {"image": 0, "format": 5}, TypeError, "imageencoder: format must be"),
    ("DirectoryShardList", FOLDER, {"path": 5}, TypeError, "DirectoryShardList: path must be a str or a path, got 5"),
    ("DirectoryShardList", FOLDER, {"pattern": 5}, TypeError, "DirectoryShardList: pattern must be text, got 5"),
    ("DirectoryShardList", FOLDER, {"poll": "a"}, TypeError, "DirectoryShardList: poll must be a number of seconds"),
    ("DirectoryShardList", FOLDER, {"poll": -1}, ValueError, "DirectoryShardList: poll .* 0 or more, got -1"),
    ("DirectoryShardList", FOLDER, {"timeout": None}, TypeError, "DirectoryShardList: timeout must be a number of sec"),
    ("DirectoryShardList", FOLDER, {"mode": "x"}, ValueError, "mode must be one of"),
    ("DirectoryShardList", FOLDER, {"select": "x"}, ValueError, "select must be one of"),
    ("DirectoryShardList", FOLDER, {"pol": 1}, TypeError, r"DirectoryShardList: unknown argument 'pol' \(did you mean"),
    ("RandomMix", MIX, {"datasets": 5}, TypeError, "RandomMix: datasets must be a list of data sets, got 5"),
    ("RandomMix", MIX, {"datasets": [5]}, TypeError, r"RandomMix: datasets\[0\] must be a data set, got 5"),
    ("RandomMix", MIX, {"datasets": ["a.tar"]}, TypeError, r"RandomMix: datasets\[0\] must be a data set, got 'a.tar'"),
    ("RandomMix", MIX, {"probs": 5}, TypeError, "RandomMix: probs must be numbers, one for each data set"),
    ("RandomMix", MIX, {"probs": ["a", 1]}, TypeError, "RandomMix: probs must be numbers, one for each data set"),
    ("RandomMix", MIX, {"probs": [1]}, ValueError, "RandomMix: probs must have one entry for each of the 2"),
    ("RandomMix", MIX, {"longest": "x"}, TypeError, "RandomMix: longest must be True or False"),
    ("RandomMix", MIX, {"seed": "x"}, TypeError, "seed must be an integer"),
    ("RoundRobin", wds.RoundRobin, {"datasets": 5}, TypeError, "RoundRobin: datasets must be a list of data sets"),
    ("RoundRobin", wds.RoundRobin, {"datasets": [[1]], "longest": "x"}, TypeError, "RoundRobin: longest must be"),
    ("random_samples", wds.mix.random_samples, {"sources": 5}, TypeError, "random_samples: sources must be a list of"),
    ("random_samples", wds.mix.random_samples, {"sources": [[]], "probs": "a"}, TypeError, "random_samples: probs mus"),
    ("ResampledShards", RESAMPLED, {"nshards": "a"}, TypeError, "ResampledShards: nshards must be a whole number of"),
    ("ResampledShards", RESAMPLED, {"worker_seed": 5}, TypeError, "ResampledShards: worker_seed must be a function"),
    ("ResampledShards", RESAMPLED, {"deterministic": "x"}, TypeError, "ResampledShards: deterministic must be True"),
    ("ResampledShards", RESAMPLED, {"max_urls": "a"}, TypeError, "ResampledShards: max_urls must be a whole number"),
    ("ResampledShards", RESAMPLED, {"empty_check": "x"}, TypeError, "ResampledShards: empty_check must be True or"),
    ("resampled", wds.resampled, {"n": "x"}, TypeError, "resampled: n must be a whole number of items, got 'x'"),
    ("WebDataset", wds.WebDataset, {"urls": io.BytesIO()}, TypeError, "cannot handle .*an open file: pass its name"),
    ("split_by_node", wds.split_by_node, {"src": 5}, TypeError, "split_by_node: src must be the items to divide, got "),
    ("split_by_worker", wds.split_by_worker, {"src": 5}, TypeError, "split_by_worker: src must be the items"),
    ("MockDataset", wds.MockDataset, {"sample": 1, "length": "a"}, TypeError, "MockDataset: length must be a whole"),
    ("with_epoch", extradatasets.with_epoch, {"dataset": [], "length": "a"}, TypeError, "with_epoch: length must be a"),
    ("with_length", extradatasets.with_length, {"dataset": [], "length": -1}, ValueError, "with_length: length .* -1"),
    ("with_length", extradatasets.with_length, {"dataset": [], "length": "a"}, TypeError, "with_length: length must b"),
    ("repeatedly", extradatasets.repeatedly, {"source": 5}, TypeError, "repeatedly: source must be a data set or None"),
    ("repeatedly", extradatasets.repeatedly, {"source": [], "nepochs": "x"}, TypeError, "repeatedly: nepochs must be "),
    ("repeatedly", extradatasets.repeatedly, {"source": [], "nbatches": "x"}, TypeError, "repeatedly: nbatches must b"),
    ("gopen", wds.gopen, {"url": 5}, TypeError, "a url must be a str or a path, got int: 5"),
    ("gopen", wds.gopen, {"url": "x", "mode": "q"}, ValueError, 'the mode must be "rb" or "wb", got .q.'),
    ("gopen", wds.gopen, {"url": "x", "bufsize": "q"}, TypeError, "gopen: bufsize must be a number of bytes or None"),
    ("StreamingOpen", wds.cache.StreamingOpen, {"handler": 5}, TypeError, "StreamingOpen: handler must be a function"),
    ("StreamingOpen", wds.cache.StreamingOpen, {"verbose": "x"}, TypeError, "StreamingOpen: verbose must be True or"),
    ("handle_extension", wds.handle_extension, {"extensions": 5, "f": len}, TypeError, "handle_extension: extensions"),
    ("handle_extension", wds.handle_extension, {"extensions": "a", "f": 5}, TypeError, "handle_extension: f must be"),
    ("imagehandler", wds.imagehandler, {"imagespec": "rbg"}, ValueError, r"Unknown .*'rbg' \(did you mean 'rgb'\?\)"),
    ("imagehandler", wds.imagehandler, {"imagespec": []}, ValueError, r"Unknown imagespec: \[\]"),
    ("imagehandler", wds.imagehandler, {"imagespec": "rgb", "extensions": 5}, TypeError, "imagehandler: extensions"),
    ("decode", wds.decode, {"pre": 5}, TypeError, "decode: pre must be a list of functions or None, got 5"),
    ("decode", wds.decode, {"post": "rgb"}, TypeError, "decode: post must be a list of functions or None, got 'rgb'"),
    ("decode", wds.decode, {"partial": "x"}, TypeError, "decode: partial must be True or False"),
    ("detshuffle", wds.detshuffle, {"epoch": "a"}, TypeError, "detshuffle: epoch must be a number, got 'a'"),
    ("detshuffle", wds.detshuffle, {"bufsiz": 1}, TypeError, r"detshuffle: unknown argument 'bufsiz' \(did you mean"),
    ("batched", wds.batched, {"partial": "x"}, TypeError, "batched: partial must be True or False, got 'x'"),
    ("to_tuple", wds.to_tuple, {"missing_is_error": "x"}, TypeError, "to_tuple: missing_is_error must be True or Fal"),
    ("rename", wds.rename, {"keep": "x"}, TypeError, "rename: keep must be True or False, got 'x'"),
    ("extract_keys", wds.extract_keys, {"ignore_missing": "x"}, TypeError, "extract_keys: ignore_missing must be True"),
    ("rename_keys", wds.rename_keys, {"must_match": "x"}, TypeError, "rename_keys: must_match must be True or False"),
    ("xdecode", wds.xdecode, {"defaults": 5}, TypeError, "xdecode: defaults must be a list of rules, got 5"),
    ("shuffle", wds.shuffle, {"rng": 5}, TypeError, "rng must be a generator, such as random.Random"),
    ("rsample", wds.rsample, {"rng": 5}, TypeError, "rng must be a generator, such as random.Random"),
    ("Pipe", wds.gopen, {"url": "pipe:true", "timeout": "x"}, TypeError, "Pipe: timeout must be a number of seconds"),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "foo": 1}, TypeError, "no storage option .foo."),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "attempts": 0}, ValueError, "storage option .attempts. "),
    ("s3", wds.gopen, {"url": "s3://bucket/a", "endpoint": "h:1"}, ValueError, "storage option 'endpoint' must be"),
    ("s3", wds.gopen, {"url": "s3://bucket/a", "endpoint": "ftp://h"}, ValueError, "storage option 'endpoint' must be"),
    ("s3", wds.gopen, {"url": "s3://bucket/a", "endpoint": "http://u:p@h"}, ValueError, ".* got 'http://h'$"),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "timeout": (1, 2, 3)}, ValueError, "storage option 'timeou"),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "headers": {"a\n": "b"}}, ValueError, "storage option 'header"),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "headers": {"a": 1}}, ValueError, "storage option 'headers':"),
    ("http", wds.gopen, {"url": "http://localhost:1/a", "headers": 7}, ValueError, "storage option 'headers' must be"),
    ("safe_eval", wds.utils.safe_eval, {"s": 5}, TypeError, "safe_eval: s must be text, got 5"),
    ("envsubst", wds.shardlists.envsubst, {"s": 5}, TypeError, "envsubst: s must be text, got 5"),
    ("glob_with_braces", wds.utils.glob_with_braces, {"pattern": 5}, TypeError, "braceexpand: pattern must be text"),
    ("info", wds.info, {"n": "a"}, TypeError, "info: n must be a number of samples, got 'a'"),
    ("info", wds.info, {"every": None}, TypeError, "info: every must be a number of samples"),
    ("info", wds.info, {"width": 1.5}, TypeError, "info: width must be a whole number of characters, got 1.5"),
    ("info", wds.info, {"fmt": 5}, TypeError, "info: fmt must be text or None, got 5"),
    ("info", wds.info, {"stream": "x"}, TypeError, "info: stream must be something to write to"),
    ("log_keys", filters.log_keys, {"logfile": 5}, TypeError, "log_keys: logfile must be a str or a path or None"),
    ("LMDBCached", filters.LMDBCached, {"fname": 5}, TypeError, "LMDBCached: fname must be a str or a path, got 5"),
    ("LMDBCached", filters.LMDBCached, {"fname": "x", "map_size": "a"}, TypeError, "LMDBCached: map_size must be a"),
    ("LMDBCached", filters.LMDBCached, {"fname": "x", "chunksize": 0}, ValueError, "LMDBCached: chunksize must be a"),
    ("tarfile_to_samples", wds.tarfile_to_samples, {"handler": 5}, TypeError, "tarfile_samples: handler must be a fu"),
    ("tarfile_to_samples", wds.tarfile_to_samples, {"select_files": 5}, TypeError, "tarfile_samples: select_files mus"),
    ("tarfile_to_samples", wds.tarfile_to_samples, {"rename_files": 5}, TypeError, "tarfile_samples: rename_files mus"),
    ("cbors_to_samples", wds.cbors_to_samples, {"handler": 5}, TypeError, "cbors_samples: handler must be a function"),
    ("url_opener", FIRST(stages.url_opener), {"handler": None}, TypeError, "url_opener: handler must be a function of"),
    ("tar_file_expander", FIRST(stages.tar_file_expander), {"handler": 5}, TypeError, "tar_file_expander: handler mus"),
    ("tar_file_expander", FIRST(stages.tar_file_expander), {"select_files": 5}, TypeError, "tar_file_expander: select"),
    ("tar_file_expander", FIRST(stages.tar_file_expander), {"ignore_zeros": "x"}, TypeError, "tar_file_expander: igno"),
    ("group_by_keys", FIRST(stages.group_by_keys), {"keys": 5}, TypeError, "group_by_keys: keys must be a function"),
    ("group_by_keys", FIRST(stages.group_by_keys), {"torn": "x"}, ValueError, 'group_by_keys: torn must be "warn" or'),
    ("group_by_keys", FIRST(stages.group_by_keys), {"lcase": "x"}, TypeError, "group_by_keys: lcase must be True or"),
    ("group_by_keys", FIRST(stages.group_by_keys), {"suffixes": 5}, TypeError, "group_by_keys: suffixes must be a lis"),
    ("group_by_keys", FIRST(stages.group_by_keys), {"handler": 5}, TypeError, "group_by_keys: handler must be a funct"),
    ("tar_file_iterator", FIRST(stages.tar_file_iterator), {"handler": 5}, TypeError, "tar_file_iterator: handler mus"),
    ("compute_sample_weights", wds.utils.compute_sample_weights, {"n_w_pairs": 5}, TypeError, "compute_sample_weights"),
    ("WebLoader", wds.WebLoader, {"dataset": 5}, TypeError, "WebLoader: dataset must be a data set, got 5"),
    ("WebLoader", wds.WebLoader, {"num_worker": 2}, TypeError, r"WebLoader: unknown argument 'num_worker' \(did you"),
    ("FluidWrapper", wds.FluidWrapper, {"initial": 5}, TypeError, "FluidWrapper: initial must be something to iterate"),
]  # fmt: skip
if importlib.util.find_spec("torch") is None:  # then it says that torch is missing, whatever the arguments
    CASES = [case for case in CASES if case[0] != "WebLoader"]


@pytest.mark.parametrize(
    ("make", "arguments", "kind", "text"),
    [case[1:] for case in CASES],
    ids=[f"{name}-{'-'.join(arguments)}-{i}" for i, (name, _, arguments, _, _) in enumerate(CASES)],
)
def test_wrong_arguments_are_told_in_one_line(make, arguments, kind, text):
    """The error comes when the object is made, in one line, with its argument."""
    with pytest.raises(kind) as caught:
        make(**arguments)
    message = str(caught.value)
    assert re.match(text, message), message
    assert "\n" not in message


def test_every_argument_of_webdataset_is_in_the_table():
    """None is forgotten."""
    named = {argument for name, _, arguments, *_ in CASES if name == "WebDataset" for argument in arguments}
    assert set(inspect.signature(wds.WebDataset).parameters) <= named


def test_what_older_programs_pass_is_taken():
    """None for a switch, a float for a number of shards, a number for verbose."""
    assert wds.WebDataset("a.tar", verbose=2, repeat=None, detshuffle=None, cache_size=None, shardshuffle=1e3)
    assert wds.WebDataset("a.tar", shardshuffle=0, resampled=0, empty_check=1, nodesplitter=None, url_to_name=None)


class Anything:
    """A number as other libraries have them."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_numbers_of_other_libraries_are_numbers(tmp_path):
    """numpy's integers and floats, and whatever can be an index, are taken where numbers are."""
    ds = wds.WebDataset("a.tar").shuffle(np.float32(10)).repeat(np.int64(2)).with_length(np.int32(7))
    assert 7 == len(ds.with_epoch(np.int64(5)))
    assert [3, 3] == list(wds.MockDataset(3, Anything(2)))
    assert wds.RandomMix([[1], [2]], probs=np.array([0.5, 0.5], np.float32))
    assert wds.RandomMix(([1], [2]), probs=(np.float64(1), 2))
    with wds.ShardWriter(tmp_path / "%d.tar", maxcount=np.int64(1), maxsize=np.float64(1e9)) as writer:
        writer.write({"__key__": "a", "txt": "b"})
    assert (tmp_path / "0.tar").exists()


def test_stages_with_checks_keep_their_signature_and_pickle():
    """`inspect` sees the arguments; a stage that was checked travels to workers."""
    assert ["data", "keys", "lcase", "suffixes", "handler", "torn"] == list(
        inspect.signature(stages.group_by_keys).parameters
    )
    stage = pickle.loads(pickle.dumps(wds.tarfile_to_samples(handler=wds.warn_and_continue)))
    assert [] == list(stage([]))
    assert [1] == list(pickle.loads(pickle.dumps(wds.info(n=0)))([1]))


CURRIED = {name: stage for name in filters.__all__ if isinstance(stage := getattr(filters, name), filters.RestCurried)}
STAGES = [name for name, stage in CURRIED.items() if public_name(stage) == name]


def test_every_stage_is_in_the_table():
    """None of the filters is forgotten."""
    named = {name for name, *_ in CASES}
    assert set(STAGES) <= named
    assert len(STAGES) > 20


@pytest.mark.parametrize("name", STAGES)
def test_stages_refuse_handlers_that_are_none(name):
    """Where a stage takes a handler that it asks, something else is refused when the stage is made."""
    stage = getattr(filters, name)
    signature = inspect.signature(stage.f)
    if "handler" not in signature.parameters or name == "shuffle":
        return
    needed = {"map": {"f": len}, "select": {"predicate": len}, "map_dict": {"a": len}}
    needed |= {"require_fields": {"fields": "a"}, "associate": {"associator": {}}}
    with pytest.raises(TypeError, match=f"{name}: handler must be a function of one exception"):
        stage(**needed.get(name, {}), handler="warn")


CLASSIC = {
    "extensions": r'\.decode\("rgb"\)\.to_tuple',
    "decoder": r'\.decode\("rgb"\)',
    "transforms": r"map_tuple",
    "pipeline": r"\.compose",
    "epochs": r"\.repeat\(n\)",
    "opener": "gopen_schemes",
    "shuffle": r"shardshuffle=",
    "associate": r"\.associate",
    "prepare_for_worker": "workersplitter=None",
    "length": r"with_length\(n\)",
    "suffixes": "to_tuple",
}


@pytest.mark.parametrize("name", CLASSIC)
def test_arguments_of_the_classic_api_say_the_modern_way(name):
    """A keyword of version 0.1 is an error that says what to write now, and which class takes it."""
    with pytest.raises(TypeError, match=f"WebDataset: unknown argument '{name}': write WebDataset.*{CLASSIC[name]}"):
        wds.WebDataset("a.tar", **{name: 1})


def test_subclasses_may_have_arguments_of_their_own():
    """What a subclass takes is not refused by the class above it."""

    class Mine(wds.WebDataset):
        def __init__(self, urls, extensions=None, **kw):
            super().__init__(urls, **kw)
            self.extensions = extensions

    assert 3 == Mine("a.tar", extensions=3, handler=wds.warn_and_continue).extensions
    with pytest.raises(TypeError, match="unknown argument 'decoder'"):
        Mine("a.tar", decoder=3)


def test_the_signature_of_webdataset_is_the_published_one_with_ours_behind():
    """inspect sees the published names in their order; ours are keyword-only."""
    parameters = inspect.signature(wds.WebDataset).parameters.values()
    published = (
        "urls handler mode resampled repeat shardshuffle cache_size cache_dir url_to_name detshuffle nodesplitter"
        " workersplitter select_files rename_files empty_check verbose seed"
    )
    assert published == " ".join(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)
    assert ["ignore_zeros", "torn", "require", "on_missing", "keys", "lcase", "storage_options"] == [
        one.name for one in parameters if one.kind is one.KEYWORD_ONLY
    ]


FLUID = [
    (lambda ds: ds.batched(0), "batchsize"),
    (lambda ds: ds.listed(0), "batchsize"),
    (lambda ds: ds.shuffle(10, sed=1), "'sed'"),
    (lambda ds: ds.shuffle(None), "shuffle: bufsize must be a number of samples, got None"),
    (lambda ds: ds.with_epoch("a"), "with_epoch: nsamples must be a whole number"),
    (lambda ds: ds.with_epoch(nbatches=2.5), "with_epoch: nbatches must be a whole number"),
    (lambda ds: ds.repeat("a"), "repeat: nepochs must be a whole number"),
    (lambda ds: ds.repeat(nbatches="a"), "repeat: nbatches must be a whole number"),
    (lambda ds: ds.with_length("a"), "with_length: n must be a number of items"),
    (lambda ds: ds.with_length(-1), "with_length: n must be a number of items or None, 0 or more, got -1"),
    (lambda ds: ds.set_epoch("a"), "set_epoch: epoch must be a whole number"),
    (lambda ds: ds.log_keys(5), "log_keys: logfile must be"),
    (lambda ds: ds.lmdb_cached(5), "LMDBCached: fname must be"),
    (lambda ds: ds.decode("rbg"), "did you mean 'rgb'?"),
    (lambda ds: ds.decode(pre=5), "decode: pre must be"),
    (lambda ds: ds.map(3), "map: f"),
    (lambda ds: ds.decode("rgbb"), "rgbb"),
    (lambda ds: ds.map_dict(a=3), "map_dict: a"),
    (lambda ds: ds.select(3), "select: predicate"),
    (lambda ds: ds.to_tuple(3), "a field must be"),
    (lambda ds: ds.map_tuple(3), "map_tuple: function 0"),
    (lambda ds: ds.slice("x"), "slice: stop"),
    (lambda ds: ds.rename(a=3), "a field must be"),
    (lambda ds: ds.rsample(7), "rsample: p"),
    (lambda ds: ds.rename_keys(3), "rename_keys: a rule"),
    (lambda ds: ds.extract_keys(3), "a field must be"),
    (lambda ds: ds.xdecode(3), "xdecode: a rule"),
]


@pytest.mark.parametrize(("call", "text"), FLUID, ids=[text for _, text in FLUID])
def test_fluid_methods_tell_where_the_pipeline_is_built(call, text):
    """Not at the first sample: nothing has been opened yet."""
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        call(wds.WebDataset("there-is-no-such.tar"))
    assert issubclass(wds.WebDataset, FluidInterface)


def test_stages_of_other_people_are_not_called_when_they_are_made():
    """`pipelinefilter` looks at names of arguments only; the function runs with its data."""
    calls = []

    def eager(data, n=1):
        calls.append(n)
        return iter(data)

    stage = wds.pipelinefilter(eager)(n=2)
    assert [] == calls
    assert [5] == list(stage([5]))
    assert [2] == calls
    with pytest.raises(TypeError, match="eager: unknown argument 'm'; known are n"):
        wds.pipelinefilter(eager)(m=2)


def test_checked_stages_still_pickle():
    """A stage and what makes it survive pickling, with the check."""
    make = pickle.loads(pickle.dumps(wds.batched))
    with pytest.raises(ValueError, match="batchsize"):
        make(0)
    assert [[1, 2], [3]] == list(pickle.loads(pickle.dumps(make(2, collation_fn=None)))([1, 2, 3]))
