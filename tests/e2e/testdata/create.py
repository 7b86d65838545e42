"""Creates ConfigMaps for some seconds, as a controller that never tries a write again.

The arguments are the namespace and the seconds. The output is a JSON object: how often each status
came, and the longest time that a write took.
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
    headers = {"Authorization": "Bearer " + f.read(), "Content-Type": "application/json"}
body = json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "written-"}})
statuses, longest, end = collections.Counter(), 0, time.monotonic() + seconds
while time.monotonic() < end:
    begin = time.monotonic()
    server.request("POST", "/api/v1/namespaces/" + namespace + "/configmaps", body=body, headers=headers)
    response = server.getresponse()
    response.read()
    statuses[response.status] += 1
    longest = max(longest, time.monotonic() - begin)
    time.sleep(0.05)
print(json.dumps({"statuses": statuses, "longest": longest}))
