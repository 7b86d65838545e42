# A list, then a watch from its version, with kubeclient. Once a second it prints the ConfigMap
# greeting as it has followed it, and as the API server answers.
require 'kubeclient'

ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'.freeze
namespace = File.read("#{ACCOUNT}/namespace").strip
$stdout.sync = true

def client
  Kubeclient::Client.new(
    "https://#{ENV.fetch('KUBERNETES_SERVICE_HOST')}:#{ENV.fetch('KUBERNETES_SERVICE_PORT')}/api", 'v1',
    auth_options: { bearer_token_file: "#{ACCOUNT}/token" },
    ssl_options: { ca_file: "#{ACCOUNT}/ca.crt" }
  )
end

known = {}

follower = Thread.new do
  loop do
    api = client
    list = api.get_config_maps(namespace: namespace)
    list.each { |item| known[item.metadata.name] = item.data&.value }
    api.watch_config_maps(namespace: namespace, resource_version: list.resourceVersion).each do |event|
      break puts("watch: #{event.object.message}") if event.type == 'ERROR'

      known[event.object.metadata.name] = event.object.data&.value
    end
  rescue StandardError => e
    puts "follow: #{e.class}: #{e.message}"
    sleep 1
  end
end
follower.abort_on_exception = true

api = client
loop do
  sleep 1
  asked = api.get_config_map('greeting', namespace).data.value
  puts "followed=#{known['greeting']} asked=#{asked}"
rescue StandardError => e
  puts "ask: #{e.class}: #{e.message}"
end
