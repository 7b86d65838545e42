"""An ordinary in-cluster program for the official Python client.

It loads the in-cluster configuration, runs one command and prints a JSON object.
It knows nothing of Rockpool.

    client.py list | get NAME | create NAME | watch RESOURCE_VERSION SECONDS
"""

import json
import sys

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def short(cm):
    return {"name": cm.metadata.name, "resourceVersion": cm.metadata.resource_version, "data": cm.data}


def run(api, namespace, verb, *args):
    if verb == "list":
        found = api.list_namespaced_config_map(namespace)
        return {"resourceVersion": found.metadata.resource_version, "items": [short(cm) for cm in found.items]}
    if verb == "get":
        return short(api.read_namespaced_config_map(args[0], namespace))
    if verb == "create":
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=args[0]), data={"by": "python"})
        return short(api.create_namespaced_config_map(namespace, body))
    if verb == "watch":
        events = watch.Watch().stream(
            api.list_namespaced_config_map, namespace, resource_version=args[0], timeout_seconds=int(args[1])
        )
        return {"events": [{"type": e["type"], **short(e["object"])} for e in events]}
    raise SystemExit(__doc__)


def main():
    config.load_incluster_config()
    with open(NAMESPACE) as f:
        namespace = f.read().strip()
    try:
        answer = run(client.CoreV1Api(), namespace, *sys.argv[1:])
    except ApiException as e:
        status = json.loads(e.body) if e.body else {}
        answer = {"status": e.status, "reason": status.get("reason"), "message": status.get("message")}
    print(json.dumps(answer))


main()
