// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Replaces a data base by one with the same content, except for times, in an order that does not depend on the run.
//
// bbolt writes the buckets that a transaction has touched in the random order of a map. So each bucket gets a transaction
// of its own, which touches nothing but the buckets above it, one at each level. The page size is that of a device with
// the smallest pages; bbolt reads it from the file.
func copyOf(file string) (err error) {
	from, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	scratch := file + ".new"
	to, err := bolt.Open(scratch, 0o600, &bolt.Options{PageSize: 4096, NoSync: true, FreelistType: bolt.FreelistArrayType})
	if err != nil {
		return errors.Join(err, from.Close())
	}
	err = from.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return copyBucket(to, [][]byte{name}, bucket)
		})
	})
	if err := errors.Join(err, from.Close(), to.Close()); err != nil {
		return err
	}
	return os.Rename(scratch, file)
}

func copyBucket(to *bolt.DB, path [][]byte, from *bolt.Bucket) error {
	err := to.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(path[0])
		for _, name := range path[1:] {
			if err != nil {
				return err
			}
			bucket, err = bucket.CreateBucketIfNotExists(name)
		}
		if err != nil {
			return err
		}
		if err := bucket.SetSequence(from.Sequence()); err != nil {
			return err
		}
		return from.ForEach(func(key, value []byte) error {
			if value == nil && from.Bucket(key) != nil {
				return nil
			}
			if name := string(key); name == "createdat" || name == "updatedat" {
				if value, err = epoch.MarshalBinary(); err != nil {
					return err
				}
			}
			return bucket.Put(key, value)
		})
	})
	if err != nil {
		return err
	}
	return from.ForEachBucket(func(name []byte) error {
		return copyBucket(to, append(path[:len(path):len(path)], name), from.Bucket(name))
	})
}
