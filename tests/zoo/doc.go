// Package zoo runs programs that nobody here wrote, unmodified, in injected pods of a real node, and
// asks each of them in its own function: CoreDNS for a name, Prometheus for its targets, Traefik for
// a route. All of them live through one story together:
//
//	online              each shows the objects as they are
//	cut                 the link is cut; each still shows them
//	program restarted   each is killed, and shows them again
//	sidecar restarted   each sidecar is killed, then each program; each shows them again
//	changed             the objects change in the cloud, which the node cannot know
//	back                the link is back; each shows the objects as they are now
//
// Table lists the programs. Install builds or finds them, which needs a network; a program that this
// machine cannot have is skipped with a reason. Run tells the story on a node. Results make the
// table in docs/clients.md.
package zoo
