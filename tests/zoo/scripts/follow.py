"""A loop over aiohttp like that of kopf: a list, then a watch from its version, and again from the
start when the server says that the version is gone. Once a second it prints the ConfigMap greeting
as it has followed it, and as the API server answers."""

import asyncio
import json
import os
import ssl

import aiohttp

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
known = {}


def read(name):
    with open(ACCOUNT + name) as f:
        return f.read().strip()


async def get(session, path, **params):
    headers = {"Authorization": "Bearer " + read("token"), "User-Agent": "kopf-like"}
    return await session.get(path, headers=headers, params=params)


async def watch(session, path, version):
    params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "300"}
    async with await get(session, path, **params) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            event = json.loads(line)
            if event["type"] == "ERROR":
                print("watch:", event["object"].get("message"), flush=True)
                return
            keep(event["object"])


def keep(item):
    known[item["metadata"]["name"]] = (item.get("data") or {}).get("value")


async def follow(session, path):
    while True:
        try:
            async with await get(session, path) as answer:
                answer.raise_for_status()
                listed = await answer.json()
            for item in listed["items"]:
                keep(item)
            await watch(session, path, listed["metadata"]["resourceVersion"])
        except (aiohttp.ClientError, asyncio.TimeoutError) as e:
            print("follow:", repr(e), flush=True)
            await asyncio.sleep(1)


async def ask(session, path):
    while True:
        try:
            async with await get(session, path + "/greeting") as answer:
                answer.raise_for_status()
                asked = (await answer.json())["data"]["value"]
            print(f"followed={known.get('greeting')} asked={asked}", flush=True)
        except (aiohttp.ClientError, asyncio.TimeoutError) as e:
            print("ask:", repr(e), flush=True)
        await asyncio.sleep(1)


async def main():
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    path = f"/api/v1/namespaces/{read('namespace')}/configmaps"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ACCOUNT + "ca.crt"))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(f"https://{host}:{port}", connector=connector, timeout=timeout) as session:
        await asyncio.gather(follow(session, path), ask(session, path))


asyncio.run(main())
