# An ordinary program of the official Python client: it lists the pods of a namespace once.
import sys

from kubernetes import client, config

config.load_kube_config()
print(len(client.CoreV1Api().list_namespaced_pod(sys.argv[1]).items))
