"""Reads and writes like an ordinary program that retries all the time, until its time is over.

The arguments are the namespace and the seconds. The output is a JSON object: how often each status
came for each kind of request, and the header Audit-Id of each first refusal.
"""

import collections
import http.client
import json
import os
import ssl
import sys
import time

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"

namespace, seconds = sys.argv[1], float(sys.argv[2])
context = ssl.create_default_context(cafile=ACCOUNT + "ca.crt")
server = http.client.HTTPSConnection(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]), context=context)
with open(ACCOUNT + "token") as f:
    token = f.read()
prefix = "/api/v1/namespaces/" + namespace
event = {
    "kind": "Event", "apiVersion": "v1", "reason": "Worked", "type": "Normal", "message": "something was done",
    "metadata": {"generateName": "work."}, "involvedObject": {"kind": "ConfigMap", "namespace": namespace, "name": "greeting"},
}
requests = {
    "read": ("GET", prefix + "/configmaps/greeting", None, None),
    "secret": ("GET", prefix + "/secrets/key", None, None),
    "unknown": ("GET", prefix + "/services/absent/proxy/", None, None),
    "write": ("PATCH", prefix + "/configmaps/greeting", json.dumps({"data": {"seen": "yes"}}), "application/merge-patch+json"),
    "event": ("POST", prefix + "/events", json.dumps(event), "application/json"),
}
statuses, refused, end = collections.defaultdict(collections.Counter), {}, time.monotonic() + seconds
while time.monotonic() < end:
    for name, (method, path, body, kind) in requests.items():
        headers = {"Authorization": "Bearer " + token, "User-Agent": "work/1.0"}
        if kind:
            headers["Content-Type"] = kind
        server.request(method, path, body=body, headers=headers)
        response = server.getresponse()
        response.read()
        statuses[name][response.status] += 1
        if response.status == 503:
            refused.setdefault(name, response.getheader("Audit-Id"))
    time.sleep(0.2)
print(json.dumps({"statuses": statuses, "refused": refused}))
