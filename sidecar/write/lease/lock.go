package lease

import (
	"time"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
)

// lock says how one kind of object holds a leader's lock.
type lock struct {
	group, version, resource string
	kind                     convert.Kind
	noun                     string // in log lines
	// whole means that the object is the lock. Otherwise the lock is in its annotations, and most
	// objects of the kind hold none.
	whole bool
	// read gives the lock in an object or in a merge patch; the zero value where there is none.
	read func(write.Object) lockRecord
}

// lockRecord is a leader's lock as its holder has written it.
type lockRecord struct {
	holder   string
	duration time.Duration // after which another candidate may take it
	// renewed is when the holder says that it has renewed the lock. It is only compared.
	renewed string
}

// locks lists the kinds in the order of Options.
func locks(opts Options) []lock {
	var all []lock
	if opts.Leases {
		all = append(all, lock{
			group: "coordination.k8s.io", version: "v1", resource: "leases", noun: "Lease", whole: true,
			kind: convert.Kind{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, read: readLease,
		})
	}
	if opts.Annotations {
		all = append(all,
			lock{version: "v1", resource: "configmaps", noun: "lock in a ConfigMap", kind: convert.Kind{APIVersion: "v1", Kind: "ConfigMap"}, read: readAnnotations},
			lock{version: "v1", resource: "endpoints", noun: "lock in an Endpoints object", kind: convert.Kind{APIVersion: "v1", Kind: "Endpoints"}, read: readAnnotations})
	}
	return all
}

// of gives the lock that a request may be about, or nil.
func (k *Tracker) of(info *request.Info) *lock {
	for i := range k.locks {
		if l := &k.locks[i]; info.Group == l.group && info.Version == l.version && info.Resource == l.resource {
			return l
		}
	}
	return nil
}

// readLease gives the lock in the spec of a Lease. The API keeps microseconds.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/
func readLease(o write.Object) lockRecord {
	r := lockRecord{
		holder:   o.Text("spec", "holderIdentity"),
		duration: time.Duration(o.Int("spec", "leaseDurationSeconds")) * time.Second,
	}
	if at, err := time.Parse(time.RFC3339Nano, o.Text("spec", "renewTime")); err == nil {
		r.renewed = at.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
	}
	return r
}
