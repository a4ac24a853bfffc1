class Flyweight < Formula
  desc "Serves records that many programs read, from a cache that stores shared state once"
  homepage "https://github.com/OWNER/flyweight"
  version "@VERSION@"
  license "Apache-2.0"
  depends_on :linux

  on_intel do
    url "@URL@/flyweight-@VERSION@-linux-amd64.tar.gz"
    sha256 "@SHA256:flyweight-@VERSION@-linux-amd64.tar.gz@"
  end
  on_arm do
    url "@URL@/flyweight-@VERSION@-linux-arm64.tar.gz"
    sha256 "@SHA256:flyweight-@VERSION@-linux-arm64.tar.gz@"
  end

  def install
    bin.install "flyweight-dataplane", "flyweight-operator", "kubectl-flyweight"
    pkgshare.install "samples"
  end

  test do
    system bin/"flyweight-dataplane", "check", "--manifests", pkgshare/"samples"
  end
end
