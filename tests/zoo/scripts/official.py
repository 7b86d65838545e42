"""A list, then a watch from its version, with the official Python client. Once a second it prints
the ConfigMap greeting as it has followed it, and as the API server answers."""

import threading
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

known = {}


def keep(item):
    known[item.metadata.name] = (item.data or {}).get("value")


def follow(api, namespace):
    while True:
        try:
            listed = api.list_namespaced_config_map(namespace)
            for item in listed.items:
                keep(item)
            events = watch.Watch().stream(
                api.list_namespaced_config_map, namespace, resource_version=listed.metadata.resource_version
            )
            for event in events:
                keep(event["object"])
        except (ApiException, HTTPError) as e:
            print("follow:", repr(e), flush=True)
            time.sleep(1)


def main():
    config.load_incluster_config()
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as f:
        namespace = f.read().strip()
    api = client.CoreV1Api()
    threading.Thread(target=follow, args=(api, namespace), daemon=True).start()
    while True:
        time.sleep(1)
        try:
            asked = api.read_namespaced_config_map("greeting", namespace).data["value"]
            print(f"followed={known.get('greeting')} asked={asked}", flush=True)
        except (ApiException, HTTPError) as e:
            print("ask:", repr(e), flush=True)


main()
