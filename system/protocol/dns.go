package protocol

import (
	"errors"
	"fmt"
)

// FromDNS is a message that a DNS receiver sends: TxtRecordRequest.
type FromDNS interface{ fromDNS() }

// ToDNS is a message that a DNS receiver receives: TxtRecordResponse.
type ToDNS interface{ toDNS() }

// MaxClusterName is the greatest length of a cluster's name: a host's, and a
// port.
const MaxClusterName = 253 + len(":65535")

// TxtRecordRequest asks for the values of a cluster's ACME challenges.
type TxtRecordRequest struct {
	Cluster string `json:"cluster"`
	// RequestID, ours, comes back in the response, so that late ones are told apart.
	// Who sends one is also told when the store cannot be asked; a receiver of 0.5.x
	// would take that for an answer, and is told nothing.
	RequestID uint64 `json:"request_id,omitempty"`
}

// TxtRecordResponse answers TxtRecordRequest. TxtValue is the one value that a
// receiver of 0.5.x knows of.
type TxtRecordResponse struct {
	Cluster  string  `json:"cluster"`
	TxtValue *string `json:"txt_value"`
	// TxtValues, ours, are all values, TxtValue first. Nil from a controller of
	// 0.5.x.
	TxtValues []string `json:"txt_values,omitempty"`
	RequestID uint64   `json:"request_id,omitempty"` // ours
	// Failed, ours, says that the store could not be asked.
	Failed bool `json:"failed,omitempty"`
}

// Values are all values that the response has.
func (r TxtRecordResponse) Values() []string {
	if len(r.TxtValues) > 0 {
		return r.TxtValues
	}
	if r.TxtValue != nil {
		return []string{*r.TxtValue}
	}
	return nil
}

func (TxtRecordRequest) fromDNS() {}
func (TxtRecordResponse) toDNS()  {}

// EncodeFromDNS returns the frame.
func EncodeFromDNS(m FromDNS) []byte {
	if m, ok := m.(TxtRecordRequest); ok {
		return tagged("TxtRecordRequest", m)
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeFromDNS reads a DNS receiver's message. Whether the cluster is one is
// not looked at: questions come from the internet, and have an answer.
func DecodeFromDNS(frame []byte) (FromDNS, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	if tag != "TxtRecordRequest" {
		return nil, unknown(tag)
	}
	return decode(tag, body, func(m TxtRecordRequest) error { return clusterLength(m.Cluster) })
}

// EncodeToDNS returns the frame.
func EncodeToDNS(m ToDNS) []byte {
	if m, ok := m.(TxtRecordResponse); ok {
		return tagged("TxtRecordResponse", m)
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeToDNS reads a message for a DNS receiver.
func DecodeToDNS(frame []byte) (ToDNS, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	if tag != "TxtRecordResponse" {
		return nil, unknown(tag)
	}
	return decode(tag, body, func(m TxtRecordResponse) error { return clusterLength(m.Cluster) })
}

func clusterLength(cluster string) error {
	switch {
	case cluster == "":
		return errors.New("cluster is missing")
	case len(cluster) > MaxClusterName:
		return fmt.Errorf("cluster has %d bytes, more than %d", len(cluster), MaxClusterName)
	}
	return nil
}
