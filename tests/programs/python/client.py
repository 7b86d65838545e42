"""An ordinary in-cluster program for the official Python client.

It loads the in-cluster configuration, runs one command and prints a JSON object.
It knows nothing of Rockpool.

    client.py list | get NAME | create NAME | watch RESOURCE_VERSION SECONDS

follow NAMESPACE watches as most programs do, without a list and without a version, and again when
the stream breaks. It prints a line for each event, as tests/programs/watcher does.
"""

import functools
import json
import sys
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def short(cm):
    return {"name": cm.metadata.name, "resourceVersion": cm.metadata.resource_version, "data": cm.data}


def say(**line):
    print(json.dumps({"client": "python", **line}), flush=True)


def follow(api, namespace):
    @functools.wraps(api.list_namespaced_config_map)
    def stream(*args, **kwargs):
        answer = api.list_namespaced_config_map(*args, **kwargs)
        # The library itself resumes a stream that ends without an error.
        say(event="watch", resourceVersion=kwargs.get("resource_version") or "")
        return answer

    while True:
        try:
            for e in watch.Watch().stream(stream, namespace):
                meta = e["object"].metadata
                say(event=e["type"], name=meta.name, uid=meta.uid, resourceVersion=meta.resource_version)
        except ApiException as e:
            if e.status == 410:
                say(event="gone")
        except HTTPError as e:
            print(e, file=sys.stderr)
        time.sleep(0.1)


def run(api, namespace, verb, *args):
    if verb == "list":
        found = api.list_namespaced_config_map(namespace)
        return {"resourceVersion": found.metadata.resource_version, "items": [short(cm) for cm in found.items]}
    if verb == "get":
        return short(api.read_namespaced_config_map(args[0], namespace))
    if verb == "create":
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=args[0]), data={"by": "python"})
        return short(api.create_namespaced_config_map(namespace, body))
    if verb == "follow":
        follow(api, args[0])
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
