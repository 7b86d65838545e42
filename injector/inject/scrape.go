package inject

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The annotations by which many configurations of Prometheus find what to scrape.
const (
	annotationScrape     = "prometheus.io/scrape"
	annotationScrapePort = "prometheus.io/port"
	scrapePrefix         = "prometheus.io/"
)

// addScrape has Prometheus scrape the sidecar at the pod's addresses, and reports whether it does so.
// A pod with such annotations of its own keeps them: they are about a port of the application.
func addScrape(pod *corev1.Pod, port int32) bool {
	for name := range pod.Annotations {
		if strings.HasPrefix(name, scrapePrefix) {
			return false
		}
	}
	pod.Annotations[annotationScrape] = "true"
	pod.Annotations[annotationScrapePort] = strconv.Itoa(int(port))
	return true
}

// removeScrape undoes addScrape.
func (s *Status) removeScrape(pod *corev1.Pod) {
	if s.Scrape {
		delete(pod.Annotations, annotationScrape)
		delete(pod.Annotations, annotationScrapePort)
	}
}
