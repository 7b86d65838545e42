"""Sends requests to the API without a client library. It knows nothing of Rockpool.

The argument is a JSON list of requests, {method, target, headers, body, padding}; padding is a
number of blanks after the body. The output is a JSON list of answers; bodies in protobuf and CBOR
are in base64. "{token}" in a header stands for the pod's own token.
"""

import base64
import http.client
import json
import os
import ssl
import sys
import time

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"


def read(name):
    with open(ACCOUNT + name) as f:
        return f.read()


def ask(question):
    headers = {k: v.replace("{token}", read("token")) for k, v in (question.get("headers") or {}).items()}
    server = http.client.HTTPSConnection(
        os.environ["KUBERNETES_SERVICE_HOST"],
        int(os.environ["KUBERNETES_SERVICE_PORT"]),
        context=ssl.create_default_context(cafile=ACCOUNT + "ca.crt"),
        timeout=30,
    )
    body = question.get("body")
    if "padding" in question:
        body += " " * question["padding"]
    start = time.monotonic()
    server.request(question["method"], question["target"], body=body, headers=headers)
    response = server.getresponse()
    body = response.read()
    if any(binary in response.getheader("Content-Type", "") for binary in ("protobuf", "cbor")):
        body = base64.b64encode(body)
    return {
        "status": response.status,
        "headers": {k.title(): v for k, v in response.getheaders()},
        "body": body.decode(errors="replace"),
        "seconds": time.monotonic() - start,
    }


print(json.dumps([ask(q) for q in json.loads(sys.argv[1])]))
