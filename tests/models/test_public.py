"""The public surface of the room."""

from __future__ import annotations

import dataclasses
import inspect

from rrm_extract import models
from rrm_extract.models import compression
from rrm_extract.models.registry import carries_weights, is_classifier, is_model_file


def test_exported_names() -> None:
    assert models.__all__ == [
        "Letterbox",
        "Limb",
        "LoadedModel",
        "ModelEntry",
        "Placement",
        "Preprocess",
        "Region",
        "Skeleton",
        "Transform",
        "coco_ids",
        "coco_names",
        "list_models",
        "load_model",
        "parse_preprocess",
    ]


def test_options_are_keywords() -> None:
    parameters = inspect.signature(models.load_model).parameters
    assert [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY] == [
        "weights",
        "preprocess",
    ]


def test_fields_of_a_loaded_model() -> None:
    assert [field.name for field in dataclasses.fields(models.LoadedModel)] == [
        "name",
        "architecture",
        "module",
        "transform",
        "preprocess",
        "assumed_transform",
        "input_shape",
        "weights_id",
        "weights_origin",
        "weights_sha256",
        "missing_keys",
        "unexpected_keys",
        "leaf_modules",
        "leaf_functions",
        "source",
        "categories",
        "region",
        "skeleton",
    ]


def test_exported_names_of_compression() -> None:
    assert compression.__all__ == [
        "CompressedColumns",
        "CompressedLayer",
        "CompressedNetwork",
        "EncodedLayer",
        "LayerKind",
        "LayerPlan",
        "compress_layers",
        "compress_weights",
        "compressed_columns",
        "dcz_bytes",
        "encode_layer",
        "parse_density",
        "plan_compression",
        "read_dcz",
        "read_published_net",
    ]


def test_which_networks_bring_their_weights() -> None:
    brings = ("a.onnx", "b.DCZ", "c/d.net", "package.module:factory")
    assert all(map(carries_weights, brings))
    assert not any(map(carries_weights, ("alexnet", "timm/resnet18", "caffe_alexnet")))
    assert [is_model_file(name) for name in brings] == [True, True, True, False]


def test_classifiers_are_known_by_name() -> None:
    names = ["resnet18", "timm/resnet18", "caffe_alexnet", "xnor_alexnet"]
    assert all(map(is_classifier, names))
    others = ["yolov2", "tiny_yolov2", "rtpose", "darknet:net.cfg", "net.onnx", "a.b:network"]
    assert not any(map(is_classifier, others))
