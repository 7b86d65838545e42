package cluster

import (
	"context"
	"os"
)

// Backup copies all data of etcd to a directory, which must be empty. etcd and the API server are
// stopped meanwhile, and are ready again when it returns.
func (c *ControlPlane) Backup(ctx context.Context, directory string) error {
	return c.stopped(ctx, func() error { return os.CopyFS(directory, os.DirFS(c.file("etcd"))) })
}

// Recover brings the data of a backup back, as after a disaster. The revision goes on from that of
// the backup, as with an etcdutl snapshot restore without --bump-revision.
func (c *ControlPlane) Recover(ctx context.Context, directory string) error {
	return c.stopped(ctx, func() error {
		if err := os.RemoveAll(c.file("etcd")); err != nil {
			return err
		}
		return os.CopyFS(c.file("etcd"), os.DirFS(directory))
	})
}

// stopped calls f while etcd and the API server are stopped. Afterwards etcd has another address.
func (c *ControlPlane) stopped(ctx context.Context, f func() error) error {
	c.StopAPIServer()
	c.etcd.Stop(stopGrace)
	if err := f(); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}
