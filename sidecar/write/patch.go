package write

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Patch is a JSON merge patch (RFC 7396).
type Patch map[string]any

// ReadPatch reads the body of a PATCH. Strategic merge patches, which client-go sends, are
// merge patches as long as they touch no list: with one, or with a directive, and in all
// other forms of patches, the error is ErrNeedsServer. It is a BadRequest for a body that
// cannot be read.
func ReadPatch(contentType string, body []byte) (Patch, error) {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.TrimSpace(mediaType)
	strategic := mediaType == string(types.StrategicMergePatchType)
	if !strategic && mediaType != string(types.MergePatchType) {
		return nil, fmt.Errorf("%w: apply a patch of the type %q", ErrNeedsServer, mediaType)
	}
	p, err := decode(body)
	if err != nil {
		return nil, apierrors.NewBadRequest("the patch cannot be read: " + err.Error())
	}
	if strategic && !plain(map[string]any(p)) {
		return nil, fmt.Errorf("%w: apply a strategic merge patch with lists or directives", ErrNeedsServer)
	}
	return Patch(p), nil
}

// DecodePatch reads a patch that was written here.
func DecodePatch(raw []byte) (Patch, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	p, err := decode(raw)
	return Patch(p), err
}

// plain tells that nothing in a strategic merge patch needs the schema of its object.
func plain(value any) bool {
	switch value := value.(type) {
	case []any:
		return false
	case map[string]any:
		for key, member := range value {
			if strings.HasPrefix(key, "$") || !plain(member) {
				return false
			}
		}
	}
	return true
}

// JSON is the patch's encoding.
func (p Patch) JSON() []byte { return Object(p).JSON() }

// Apply changes the object.
func (p Patch) Apply(o Object) { merge(o, p, false) }

// Then gives the patch that does what the two do one after the other.
func (p Patch) Then(next Patch) Patch {
	all := Patch{}
	merge(all, p, true)
	merge(all, next, true)
	return all
}

// merge is MergePatch of RFC 7396, which takes members away that are null in the patch; or,
// with nulls, makes one patch of two.
func merge(target, patch map[string]any, nulls bool) {
	for key, value := range patch {
		members, ok := value.(map[string]any)
		switch {
		case ok:
			into, is := target[key].(map[string]any)
			if !is {
				into = map[string]any{}
			}
			merge(into, members, nulls)
			target[key] = into
		case value == nil && !nulls:
			delete(target, key)
		default:
			target[key] = value
		}
	}
}
