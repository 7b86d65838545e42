// An informer of the official JavaScript client. Once a second it prints the ConfigMap greeting as
// the informer has it, and as the API server answers.
import { readFileSync } from 'node:fs'
import { CoreV1Api, KubeConfig, makeInformer } from '@kubernetes/client-node'

const namespace = readFileSync('/var/run/secrets/kubernetes.io/serviceaccount/namespace', 'utf8').trim()
const config = new KubeConfig()
config.loadFromCluster()
const api = config.makeApiClient(CoreV1Api)

const informer = makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () =>
  api.listNamespacedConfigMap({ namespace }),
)

function start() {
  informer.start().catch((err) => {
    console.log('start:', err.message)
    setTimeout(start, 1000)
  })
}

informer.on('error', (err) => {
  console.log('follow:', err?.message ?? err)
  setTimeout(start, 1000)
})
start()

setInterval(async () => {
  try {
    const asked = await api.readNamespacedConfigMap({ name: 'greeting', namespace })
    console.log(`followed=${informer.get('greeting', namespace)?.data.value} asked=${asked.data.value}`)
  } catch (err) {
    console.log('ask:', err.message)
  }
}, 1000)
