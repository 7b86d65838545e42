package zoo

import (
	"embed"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

var (
	//go:embed scripts/loop.sh
	loopScript string
	//go:embed scripts/follow.py
	aiohttpScript string
	//go:embed scripts/official.py
	officialScript string
	//go:embed scripts/follow.rb
	rubyScript string
	//go:embed scripts/Follow.java
	javaScript string
	//go:embed scripts/node
	nodeScript embed.FS
)

// The programs here print the ConfigMap greeting once a second, as their client has followed it and
// as the API server answers: the client is what nobody here wrote.
var scripts = []Program{
	{
		Name: "kubectl", Language: "Go", Client: "kubectl in a shell loop", Transport: "GET", Quick: true,
		Function: "prints a ConfigMap",
		source:   kubectl, files: map[string]string{"loop.sh": loopScript}, rules: configMaps,
		pod: func(b Bed, i Installed) corev1.PodSpec {
			return spec(b, slices.Concat(machine, beyond(i.Path)), "/bin/sh", filesPath+"/loop.sh", i.Path)
		},
		shows: prints("asked=%s"),
	},
	{
		Name: "client-go-1-20", Language: "Go", Client: "client-go", Transport: "informer, LIST and WATCH", Quick: true,
		Function: followed,
		source:   follower("v0.20.mod"), rules: configMaps, pod: executable(), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "client-go", Language: "Go", Client: "client-go", Transport: "informer, WatchList", Quick: true,
		Function: followed,
		source:   follower("v0.37.mod"), rules: configMaps, pod: executable(), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "client-node", Language: "JavaScript", Client: "@kubernetes/client-node", Transport: "informer, LIST and WATCH", Quick: true,
		Function: followed,
		source:   npm, rules: configMaps,
		pod: func(b Bed, i Installed) corev1.PodSpec {
			return spec(b, slices.Concat(machine, []string{i.Path}), nodeProgram, i.Path+"/follow.js")
		},
		shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "java-websocket", Language: "Java", Client: "java.net.http of the JDK", Transport: "LIST, and WATCH over WebSocket", Quick: true,
		Function: followed,
		source:   debian("java", "default-jdk-headless", "--version"),
		files:    map[string]string{"Follow.java": javaScript}, rules: configMaps,
		pod: script(filesPath + "/Follow.java"), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "kubeclient", Language: "Ruby", Client: "kubeclient", Transport: "LIST and WATCH", Quick: true,
		Function: followed,
		source:   debian("ruby", "ruby-kubeclient", "-e", `require "kubeclient"; puts Kubeclient::VERSION`),
		files:    map[string]string{"follow.rb": rubyScript}, rules: configMaps,
		pod: script(filesPath + "/follow.rb"), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "python-client", Language: "Python", Client: "kubernetes, the official client", Transport: "LIST and WATCH", Quick: true,
		Function: followed,
		source:   debian("python3", "python3-kubernetes", "-c", "import kubernetes; print(kubernetes.__version__)"),
		files:    map[string]string{"official.py": officialScript}, rules: configMaps,
		pod: script("-u", filesPath+"/official.py"), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "aiohttp", Language: "Python", Client: "aiohttp, as kopf uses it", Transport: "LIST and WATCH", Quick: true,
		Function: followed,
		source:   debian("python3", "python3-aiohttp", "-c", "import aiohttp; print(aiohttp.__version__)"),
		files:    map[string]string{"follow.py": aiohttpScript}, rules: configMaps,
		pod: script("-u", filesPath+"/follow.py"), shows: prints("followed=%s asked=%s"),
	},
}

// followed is the function of all clients with a watch.
const followed = "prints a ConfigMap, followed and asked for"

var configMaps = []rbacv1.PolicyRule{readable("", "configmaps")}
