// Package wire cuts the bodies of Kubernetes API answers into objects while
// they stream, without a scheme and without losing a byte.
//
//	list body ──▶ List ──▶ item, item, item … ──▶ Head (kind, apiVersion, metadata)
//	watch body ─▶ Frames ──▶ frame ──▶ ParseEvent ──▶ type, object
//	object ─────▶ ParseMeta ──▶ name, namespace, uid, resourceVersion, labels
//	item ───────▶ Lookup ──▶ one field; AppendPartial ──▶ the metadata alone
//
// It knows the shape of the JSON documents and nothing of any resource: fields
// that no library of ours has heard of pass through untouched. It does not
// validate JSON beyond what it needs to find where a value ends; input that is
// not JSON gives an error or a truncated result, never a panic.
//
// Memory is bounded by the largest single object, see MaxValue.
package wire
