"""Reads {name: manifests} as JSON, writes {name: {"documents": [...], "errors": [...]}}: Kubernetes' schemas decide."""

import json
import sys

import kubernetes_validate
import yaml

# Kinds of the Prometheus operator, which Kubernetes itself does not know.
FOREIGN = ("monitoring.coreos.com/",)


def judge(text, versions):
    documents = [document for document in yaml.safe_load_all(text) if document]
    errors = []
    for document in documents:
        if document["apiVersion"].startswith(FOREIGN):
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(step) for step in error.path)
                errors.append(f"{version} {document['kind']} {where}: {error.message}")
    return {"documents": documents, "errors": errors}


asked = json.load(sys.stdin)
json.dump({name: judge(text, asked["versions"]) for name, text in asked["manifests"].items()}, sys.stdout)
