;;; Many small functions, each compiled at run time. The file and the count come in *arguments*.
;;; Writes the address and the bytes of each, as they are right after it was compiled.
(defun dump (function out)
  (let ((code (sb-kernel:fun-code-header function)))
    (sb-sys:with-pinned-objects (code)
      (let ((start (sb-kernel:code-instructions code)))
        (format out "~(~x~) " (sb-sys:sap-int start))
        (dotimes (offset (sb-kernel:%code-text-size code))
          (format out "~(~2,'0x~)" (sb-sys:sap-ref-8 start offset)))
        (terpri out)))))

(let ((sum 0)
      (count (second *arguments*)))
  (with-open-file (out (first *arguments*) :direction :output :if-exists :supersede)
    (loop for number from 1 to count
          for function = (compile nil `(lambda (n)
                                         (declare (fixnum n))
                                         (let ((s ,number))
                                           (declare (fixnum s))
                                           (loop for i fixnum from 1 to n
                                                 do (setf s (mod (+ (* s 31) i) 65521)))
                                           s)))
          do (dump function out)
             (setf sum (mod (+ sum (funcall function 1000)) 65521))))
  (format t "~d~%" sum))
