// An ordinary program of the official JavaScript client: it lists the pods of a namespace once.
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node'

const config = new KubeConfig()
config.loadFromDefault()
const list = await config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace: process.argv[2] })
console.log(list.items.length)
