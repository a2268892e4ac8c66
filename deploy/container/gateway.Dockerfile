# The stand-in gateway of the tests, for compose/ and trials. Not part of the product.
FROM scratch
ADD rootfs.tar /
WORKDIR /tmp
USER 65532:65532
EXPOSE 14242
ENTRYPOINT ["/usr/local/bin/reference-gateway", "--listen", "0.0.0.0:14242", "--db", "/tmp/gateway.db"]
